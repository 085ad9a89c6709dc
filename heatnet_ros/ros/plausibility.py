"""What a camera cannot have meant, though the message is well formed. Raises DataError."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.errors import DataError

if TYPE_CHECKING:
    from sensor_msgs.msg import CameraInfo

# no row is padded by so much; a step that is so much larger belongs to another encoding
_MAX_PADDING = 512
# focal length in image widths: a fisheye's to a telescope's
_FOCAL_LENGTHS = 0.05, 100.0
# the principal point lies in the image, or beside it where the sensor is cropped
_MAX_OFFSET = 2.0
_MAX_COEFFICIENT = 1e4
# of 16-bit depth with its bytes in the wrong order, neighbours differ by 256 times as much
_ROUGHER, _SAMPLED_ROWS = 16.0, 16
# what a distance is, in 32FC1 of either unit
_LIKELY = 1e-3, 1e6


def check_padding(step: int, row: int, what: str, topic: str) -> None:
    """``row``: bytes that the pixels of a row take. ``what``: the pixels, for the message."""
    if step - row >= _MAX_PADDING:
        raise DataError(
            f"{topic}: step is {step}, but {what} take {row} bytes, and no camera pads rows by so "
            "much: the encoding or the width is another. The publisher fills the message wrongly."
        )


def check_byte_order(values: NDArray[Any], topic: str) -> None:
    """HxW uint16 or float32 depth as the message describes it.

    Surfaces are smooth and distances alike, but not when the bytes of each pixel change places.
    """
    rows = values[::_SAMPLED_ROWS]
    if values.dtype.kind == "u":
        rough, exchanged = _roughness(rows), _roughness(rows.byteswap())
        wrong = rough > _ROUGHER * max(exchanged, 1.0)
    else:
        with np.errstate(invalid="ignore"):  # bytes in the wrong order may be signalling NaN
            positive = np.isfinite(rows) & (rows > 0)
            likely = positive & (rows > _LIKELY[0]) & (rows < _LIKELY[1])
        wrong = bool(2 * np.count_nonzero(likely) < np.count_nonzero(positive))
    if wrong:
        raise DataError(
            f"{topic}: the distances are noise as is_bigendian says their bytes are ordered "
            f"({values.dtype.byteorder!r}), and none in the other order. The publisher fills the "
            "message wrongly: set is_bigendian as the data are written."
        )


def _roughness(rows: NDArray[Any]) -> float:
    """Median difference of neighbours that both have a distance; 0 where there are none."""
    wide = rows.astype(np.int32)
    both = (wide[:, 1:] > 0) & (wide[:, :-1] > 0)
    steps = np.abs(np.diff(wide, axis=1))[both]
    return float(np.median(steps)) if steps.size else 0.0


def check_intrinsics(info: CameraInfo, K: NDArray[np.float64], name: str, topic: str) -> None:
    """K: 3x3 of the whole sensor (before region of interest and binning), focal lengths > 0."""
    width, height = info.width, info.height
    if not (width and height):  # no image is of that size, which is said later
        return
    low, high = (limit * max(width, height) for limit in _FOCAL_LENGTHS)
    off = np.abs(K[:2, 2] - (width / 2, height / 2)) > _MAX_OFFSET * max(width, height)
    if not (low < K[0, 0] < high and low < K[1, 1] < high) or off.any():
        raise DataError(
            f"{topic}: {name} has focal lengths {K[0, 0]:g}, {K[1, 1]:g} and principal point "
            f"{K[0, 2]:g}, {K[1, 2]:g}: no camera with {width}x{height} pixels has. Is it of "
            "another resolution? Calibrate the camera anew or mend what fills CameraInfo."
        )
    roi = info.roi
    right, lower = roi.x_offset + roi.width, roi.y_offset + roi.height
    reaches = right > width or lower > height
    # CameraInfo's definition: the whole sensor is four zeros, or its full size
    if reaches or (any((right, lower)) and not (roi.width and roi.height)):
        raise DataError(
            f"{topic}: the region of interest of {roi.width}x{roi.height} pixels at {roi.x_offset},"
            f" {roi.y_offset} is not in the {width}x{height} sensor. Mend what fills CameraInfo."
        )


def check_coefficients(coefficients: Any, topic: str) -> None:
    """Distortion coefficients of a known model."""
    largest = float(np.abs(coefficients).max()) if len(coefficients) else 0.0
    if largest > _MAX_COEFFICIENT:
        raise DataError(
            f"{topic}: a distortion coefficient is {largest:g}, expected at most "
            f"{_MAX_COEFFICIENT:g}. Calibrate the camera anew or mend what fills CameraInfo."
        )
