"""image_transport's ``compressedDepth``: a 12-byte header, then a PNG of 16 bit, or RVL (rvl.py).

The header holds, little endian, an int32 that decoders do not read and two float32 A and B.
16UC1 is stored as it is (millimetres) and the header says nothing. 32FC1 is stored as inverse
depth, whose steps grow with the distance as those of a stereo camera do: a pixel q > 0 is
``A / (q - B)`` metres, 0 is no measurement. A and B follow from the publisher's parameters
depth_quantization s and depth_max: ``A = s * (s + 1)``, ``B = 1 - A / depth_max``. As these are
round numbers, a damaged header is told from a whole one.

``format`` names encoding and compression: ``16UC1; compressedDepth png``, or ``... rvl``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from heatnet_ros.errors import DataError
from heatnet_ros.ros.encoded_images import read_size
from heatnet_ros.ros.messages import check_depth
from heatnet_ros.ros.rvl import decode_rvl, read_rvl_size
from heatnet_ros.types import ALIGN_DEPTH, DepthF32

if TYPE_CHECKING:
    from sensor_msgs.msg import CompressedImage

_HEADER = struct.Struct("<i2f")
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_FORMAT, _RVL_FORMAT = "compressedDepth png", "compressedDepth rvl"
ENCODINGS = ("16UC1", "mono16", "32FC1")
# image_transport's defaults: farther is not stored, and the finest step
_MAX_DEPTH_M = 10.0
_QUANTIZATION = 100.0
# the parameters' ranges are within; steps in which they are set; float32's error
_MAX_DEPTH_RANGE_M, _QUANTIZATION_RANGE = (0.1, 1000.0), (1.0, 1000.0)
_MAX_DEPTH_STEP_M, _QUANTIZATION_STEP = 1e-3, 1e-2
_FLOAT_ERROR = 1e-6


def encode_depth_mm(depth_mm: NDArray[np.uint16]) -> tuple[str, bytes]:
    """HxW millimetres (0: invalid) -> ``format`` and ``data`` of a CompressedImage, lossless."""
    return f"16UC1; {_PNG_FORMAT}", _HEADER.pack(0, 0.0, 0.0) + _write_png(depth_mm)


def encode_depth_m(depth_m: DepthF32, max_depth_m: float = _MAX_DEPTH_M) -> tuple[str, bytes]:
    """HxW metres -> ``format`` and ``data`` of a CompressedImage, as quantised inverse depth.

    What is invalid (0, negative, NaN, Inf) or not nearer than ``max_depth_m`` is stored as 0. A
    step is about ``depth_m ** 2 / 10100`` metres. Under 0.152 m, 16 bits do not hold the inverse.
    """
    a = _QUANTIZATION * (_QUANTIZATION + 1.0)
    b = 1.0 - a / max_depth_m
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = a / depth_m.astype(np.float64) + b
    stored = (depth_m > 0) & (depth_m < max_depth_m) & (inverse <= np.iinfo(np.uint16).max)
    png = _write_png(np.where(stored, inverse, 0).astype(np.uint16))
    return f"32FC1; {_PNG_FORMAT}", _HEADER.pack(0, a, b) + png


def compressed_to_depth_m(
    message: CompressedImage, topic: str, size_wh: tuple[int, int] | None = None
) -> DepthF32:
    """``decode_depth_m``, and as ``image_to_depth_m`` DataError on depth that cannot be."""
    depth = decode_depth_m(message, topic, size_wh)
    check_depth(depth, topic)
    return depth


def decode_depth_m(
    message: CompressedImage, topic: str, size_wh: tuple[int, int] | None = None
) -> DepthF32:
    """``compressedDepth`` message -> HxW float32 metres, invalid pixels 0 or NaN.

    ``size_wh``: nothing of another size is decoded: a header can claim any.
    Raises DataError where format, header, PNG or RVL are not as this module's first lines say.
    """
    encoding, is_rvl = _read_format(message.format, topic)
    data = bytes(message.data)
    stored = _read_stored(data, is_rvl, message.format, topic, size_wh)
    if encoding != "32FC1":
        depth = stored.astype(np.float32) * np.float32(1e-3)
    else:
        _, a, b = _HEADER.unpack_from(data)
        _check_header(a, b, topic)
        inverse = stored.astype(np.float32) - np.float32(b)
        valid = (stored > 0) & (inverse > 0)
        depth = np.full(stored.shape, np.nan, np.float32)
        np.divide(np.float32(a), inverse, out=depth, where=valid)
    return depth


def _check_header(a: float, b: float, topic: str) -> None:
    max_depth_m = quantization = np.nan
    if np.isfinite([a, b]).all() and a > 0 and b != 1:
        max_depth_m, quantization = a / (1 - b), (np.sqrt(1 + 4 * a) - 1) / 2
    if not (
        _is_round(max_depth_m, _MAX_DEPTH_RANGE_M, _MAX_DEPTH_STEP_M)
        and _is_round(quantization, _QUANTIZATION_RANGE, _QUANTIZATION_STEP)
    ):
        raise DataError(
            f"{topic}: the compressedDepth header holds A {a:.9g}, B {b:.9g}, that is depth_max "
            f"{max_depth_m:.6g}, depth_quantization {quantization:.6g}; expected multiples of "
            f"{_MAX_DEPTH_STEP_M:g} and {_QUANTIZATION_STEP:g}. Set these parameters of the "
            "publisher so (defaults: 10.0, 100.0); else it is damaged: check the link."
        )


def _is_round(value: float, limits: tuple[float, float], step: float) -> bool:
    low, high = limits
    off = abs(value / step - np.rint(value / step)) * step
    return bool(low <= value <= high and off <= _FLOAT_ERROR * max(value, step))


def _read_format(text: str, topic: str) -> tuple[str, bool]:
    """The encoding, and whether it is RVL."""
    encoding, _, compression = (part.strip() for part in text.partition(";"))
    if encoding not in ENCODINGS or compression not in (
        "", "compressedDepth", _PNG_FORMAT, _RVL_FORMAT
    ):  # fmt: skip
        raise DataError(
            f"{topic}: format is '{text}', expected '16UC1; {_PNG_FORMAT}' or the same with 32FC1 "
            "or rvl. Remap depth/image_raw to the base topic of aligned depth."
        )
    return encoding, compression == _RVL_FORMAT


def _read_stored(
    data: bytes, is_rvl: bool, text: str, topic: str, size_wh: tuple[int, int] | None
) -> NDArray[np.uint16]:
    content = data[_HEADER.size :]
    if is_rvl:
        size = read_rvl_size(content)
    else:
        size = read_size(content) if content.startswith(_PNG_START) else None
    if size is not None and size_wh is not None and size != size_wh:
        raise DataError(
            f"{topic}: depth is {size[0]}x{size[1]}, the colour image is {size_wh[0]}x{size_wh[1]};"
            f" expected the same size. {ALIGN_DEPTH}"
        )
    try:
        return decode_rvl(content) if is_rvl else _read_png(content, size is not None)
    except ValueError as fault:
        what = "an RVL stream" if is_rvl else "a PNG of one channel and 16 bit"
        raise DataError(
            f"{topic}: expected {_HEADER.size} bytes of header and {what} behind them, got "
            f"{len(data)} bytes of format '{text}', {fault}. Check the publisher's image_transport "
            "and the link."
        ) from fault


def _read_png(png: bytes, whole: bool) -> NDArray[np.uint16]:
    """Raises ValueError where it is not ``whole``, or another picture."""
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED) if whole else None
    if image is None:
        raise ValueError("damaged or truncated")
    if image.ndim != 2 or image.dtype != np.uint16:
        raise ValueError(f"{image.shape} {image.dtype}")
    return np.asarray(image, np.uint16)


def _write_png(image: NDArray[np.uint16]) -> bytes:
    done, png = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not done:
        raise DataError(f"Depth of {image.shape} {image.dtype} cannot be written as PNG.")
    return bytes(png)
