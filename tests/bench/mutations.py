"""Mutated messages of every input type of the node, each with whether it must be refused.

A mutation returns True where it damaged the frame: its structure, its geometry, its intrinsics, or
what must agree between messages. False: the frame may give poses (other pixels are no damage that
anybody could see, nor is a number that is as plausible as the one before).
"""

from __future__ import annotations

import array
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from rvl_encoder import encode_rvl
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from heatnet_ros.ros.compressed_depth import encode_depth_m, encode_depth_mm
from heatnet_ros.ros.messages import array_to_image

Rng = np.random.Generator
# wide rows, as cameras have them, and few: cheap
SIZE_WH = (640, 48)
K = np.array([[615.0, 0.0, 320.0], [0.0, 612.0, 24.0], [0.0, 0.0, 1.0]])
FRAME_ID = "camera_color_optical_frame"
COLOR_ENCODINGS = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8")
COMPRESSIONS = ("jpg", "png")
DEPTH_ENCODINGS = ("16UC1", "mono16", "32FC1")
DEPTH_TYPES = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}
_BYTES = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}
_BYTES |= {"16UC1": 2, "mono16": 2, "32FC1": 4}
_WORDS = ("", "RGB8", "rgb8 ", "yuv999", "x" * 70_000, "\u00e9\u4e16", "16UC1;", "32FC2", "\0")
_UINT32 = 2**32 - 1


@dataclass
class Messages:
    """One frame as it arrives. ``info`` is mutated as the others are."""

    color: Image | CompressedImage
    depth: Image | CompressedImage
    info: CameraInfo


def draw_frame() -> tuple[np.ndarray, np.ndarray]:
    """rgb HxWx3 uint8 and depth HxW in millimetres: a slope with noise and holes."""
    rng = np.random.default_rng(0)
    width, height = SIZE_WH
    x, y = np.meshgrid(np.linspace(0, 200, width), np.linspace(0, 200, height))
    rgb = np.dstack([x, y, 200 - x]) + rng.normal(0, 3, (height, width, 3))
    mm = np.linspace(600, 1500, width)[None] + rng.normal(0, 3, (height, width))
    mm[rng.random((height, width)) < 0.05] = 0
    return rgb.clip(0, 255).astype(np.uint8), mm


def build_colors(rgb: np.ndarray) -> dict[str, Image | CompressedImage]:
    """HxWx3 uint8 in every encoding, whole, and once with padded rows."""
    height, width = rgb.shape[:2]
    alpha = np.full((height, width, 1), 255, np.uint8)
    pixels = {
        "rgb8": rgb, "bgr8": rgb[..., ::-1], "mono8": rgb[..., 0],
        "rgba8": np.dstack([rgb, alpha]), "bgra8": np.dstack([rgb[..., ::-1], alpha]),
    }  # fmt: skip
    colors = {name: array_to_image(pixels[name], name) for name in COLOR_ENCODINGS}
    colors["padded"] = array_to_image(np.pad(rgb.reshape(height, -1), ((0, 0), (0, 64))), "rgb8")
    colors["padded"].width = width
    for name in COMPRESSIONS:
        data = array.array("B", cv2.imencode(f".{name}", rgb[..., ::-1])[1].tobytes())
        colors[name] = CompressedImage(format={"jpg": "jpeg"}.get(name, name), data=data)
    return colors


def build_depths(mm: np.ndarray) -> dict[str, Image | CompressedImage]:
    """HxW millimetres in every encoding and byte order, and as compressedDepth of all kinds."""
    depths: dict[str, Image | CompressedImage] = {}
    compressed = encode_depth_mm(np.rint(mm).astype(np.uint16)), encode_depth_m(mm / 1000)
    for text, data in compressed:
        depths[text] = CompressedImage(format=text, data=array.array("B", data))
        stored = cv2.imdecode(np.frombuffer(data[12:], np.uint8), cv2.IMREAD_UNCHANGED)
        rvl, text_rvl = data[:12] + encode_rvl(stored), text.replace("png", "rvl")
        depths[text_rvl] = CompressedImage(format=text_rvl, data=array.array("B", rvl))
    for name in DEPTH_ENCODINGS:
        values = np.rint(mm) if name != "32FC1" else mm / 1000
        for order in "<>":
            message = array_to_image(values.astype(order + DEPTH_TYPES[name]), name)
            message.is_bigendian = int(order == ">")
            depths[name + order] = message
    return depths


def build_info(K: np.ndarray, size_wh: tuple[int, int]) -> CameraInfo:
    """With coefficients, for mutations to meet, that move no pixel."""
    info = CameraInfo(width=size_wh[0], height=size_wh[1], distortion_model="plumb_bob")
    info.d = [0.0] * 5
    info.k = K.ravel().tolist()
    info.p = np.hstack([K, np.zeros((3, 1))]).ravel().tolist()
    return info


def copy(message: Any) -> Any:
    """A message of its own; data are shared, mutations replace them."""
    out = type(message)()
    for name in message.get_fields_and_field_types():
        value = getattr(message, name)
        if name == "header":
            stamp = Time(sec=value.stamp.sec, nanosec=value.stamp.nanosec)
            value = Header(stamp=stamp, frame_id=value.frame_id)
        elif name in ("k", "p", "r"):
            value = value.copy()
        setattr(out, name, value)
    return out


def pick(rng: Rng, values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


# --- every type


def header(rng: Rng, message: Any) -> bool:
    """No damage where all messages of the frame are given the same one."""
    message.header.frame_id = pick(rng, ["", "other", "x" * 70_000, "/camera", FRAME_ID + " "])
    return True


def stamp_range(rng: Rng, message: Any) -> bool:
    """Nanoseconds that are more than a second."""
    message.header.stamp.nanosec = int(rng.integers(10**9, _UINT32, endpoint=True))
    return not isinstance(message, CameraInfo)  # whose stamp nobody asks for


def stamp_jump(rng: Rng, message: Any) -> bool:
    """Any second; before 0 is no time."""
    sec = message.header.stamp.sec = int(rng.integers(-(2**31), 2**31))
    return sec < 0 and not isinstance(message, CameraInfo)


# --- Image


def cut(rng: Rng, message: Any) -> bool:
    kept = int(rng.integers(0, len(message.data)))
    message.data = message.data[:kept]
    return True


def lengthen(rng: Rng, message: Image) -> bool:
    message.data = message.data + array.array("B", bytes(int(rng.integers(1, 5000))))
    return True


def step(rng: Rng, message: Image) -> bool:
    row = message.width * _BYTES[message.encoding]
    wrong = [0, 1, row - 1, row, row + 1, message.step + 1, 2 * row, 2**31, _UINT32]
    before, message.step = message.step, pick(rng, wrong)
    return message.step != before


def size(rng: Rng, message: Image) -> bool:
    """Other numbers, the same data."""
    name = pick(rng, ["width", "height"])
    value = getattr(message, name)
    wrong = [0, 1, value - 1, value + 1, value // 2, 2 * value, 65535, 2**31, _UINT32]
    setattr(message, name, pick(rng, wrong))
    return True


def encoding(rng: Rng, message: Image) -> bool:
    """Nonsense, or pixels of another length."""
    known = [name for name in _BYTES if _BYTES[name] != _BYTES[message.encoding]]
    message.encoding = pick(rng, [*_WORDS, *known])
    return True


def flipped_bytes(rng: Rng, message: Image) -> bool:
    """Other pixels."""
    data = np.frombuffer(message.data, np.uint8).copy()
    where = rng.integers(0, len(data), int(rng.integers(1, 200)))
    data[where] ^= rng.integers(1, 256, len(where), dtype=np.uint8)
    message.data = array.array("B", data.tobytes())
    return False


def whole_other(rng: Rng, message: Image) -> bool:
    """A right image, but of another size."""
    width, height = pick(rng, [(1, 1), (1, 48), (640, 1), (320, 24), (1280, 96), (3, 5)])
    channels = _BYTES[message.encoding]
    message.width, message.height, message.step = width, height, width * channels
    message.data = array.array("B", b"\x05" * (width * height * channels))
    return True


# --- Image of colour, of depth


def channel_order(rng: Rng, message: Image) -> bool:
    same = [name for name in COLOR_ENCODINGS if _BYTES[name] == _BYTES[message.encoding]]
    message.encoding = pick(rng, same)
    message.is_bigendian = int(rng.integers(0, 256))  # means nothing to single bytes
    return False


def byte_order(rng: Rng, message: Image) -> bool:
    message.is_bigendian = 0 if message.is_bigendian else int(rng.integers(1, 256))
    return True


def no_depth(rng: Rng, message: Image) -> bool:
    """Not one distance; or, in 32FC1, all NaN, all infinite, or millimetres."""
    values = [0.0, np.nan, np.inf, -np.inf, -1.0, 900.0, 1e30]
    value = pick(rng, values) if message.encoding == "32FC1" else 0
    order = ">" if message.is_bigendian else "<"
    dtype = np.dtype(order + DEPTH_TYPES[message.encoding])
    full = np.full((message.height, message.width), value, dtype)
    message.data = array.array("B", full.tobytes())
    return True


def holes(rng: Rng, message: Image) -> bool:
    """Some distances are NaN, infinite, negative, huge or nothing."""
    order = ">" if message.is_bigendian else "<"
    dtype = np.dtype(order + DEPTH_TYPES[message.encoding])
    values = np.frombuffer(message.data, dtype).copy()
    wild = [0, 1, 65535] if dtype.kind == "u" else [0.0, np.nan, np.inf, -np.inf, -1.0, 1e38, 1e-38]
    where = rng.random(len(values)) < rng.uniform(0, 0.4)
    values[where] = rng.choice(wild, np.count_nonzero(where))
    message.data = array.array("B", values.tobytes())
    return False


# --- CompressedImage


def nonsense(rng: Rng, message: CompressedImage) -> bool:
    length = int(rng.integers(0, 3000))
    data = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
    message.data = array.array("B", pick(rng, [b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n"]) + data)
    return True


def beheaded(rng: Rng, message: CompressedImage) -> bool:
    message.data = message.data[int(rng.integers(1, 20)) :]
    return True


def format_text(rng: Rng, message: CompressedImage) -> bool:
    """Of no use: the data say what they are."""
    message.format = pick(rng, [*_WORDS, "jpeg", "png", "rgb8; jpeg compressed bgr8"])
    return False


def compressed_bytes(rng: Rng, message: CompressedImage) -> bool:
    """A PNG has checksums; in a JPEG's scan a flipped byte is other pixels."""
    data = np.frombuffer(message.data, np.uint8).copy()
    is_png = data[0] == 0x89
    scan = data.tobytes().find(b"\xff\xda")
    low, high = (8, len(data) - 12) if is_png else (scan + 16, len(data) - 66)
    where = rng.integers(low, high, int(rng.integers(1, 30)))
    where = np.unique(where)
    data[where] ^= rng.integers(1, 256, len(where), dtype=np.uint8)
    message.data = array.array("B", data.tobytes())
    return bool(is_png)


def jpeg_header(rng: Rng, message: CompressedImage) -> bool:
    """Tables and marks before the scan; some of it nobody reads."""
    data = np.frombuffer(message.data, np.uint8).copy()
    end = data.tobytes().find(b"\xff\xda") if data[0] == 0xFF else 60
    data[int(rng.integers(2, end + 12))] ^= int(rng.integers(1, 256))
    message.data = array.array("B", data.tobytes())
    return False


def cut_scan(rng: Rng, message: CompressedImage) -> bool:
    """The lower part is missing, and the end mark is not."""
    data = message.data.tobytes()
    scan = data.find(b"\xff\xda") + 14
    if data[0] == 0x89:
        return False
    kept = int(rng.integers(scan, scan + (len(data) - scan) // 2))
    message.data = array.array("B", data[:kept] + b"\xff\xd9")
    return True


def compressed_size(rng: Rng, message: CompressedImage) -> bool:
    """The header speaks of another size; in PNG with a right checksum."""
    data = bytearray(message.data.tobytes())
    side = int(pick(rng, [1, 7, 640, 5000, 40_000, 65_000]))
    if data[0] == 0x89:
        data[16:24] = side.to_bytes(4, "big") * 2
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    else:
        at = data.find(b"\xff\xc0") + 5
        data[at : at + 4] = side.to_bytes(2, "big") * 2
    message.data = array.array("B", bytes(data))
    return True


# --- compressedDepth: 12 bytes and a PNG or RVL


def depth_format(rng: Rng, message: CompressedImage) -> bool:
    """Other texts than those of image_transport, or than what the data are."""
    known = ("16UC1;",)  # says what the data are
    words = [word for word in _WORDS if word not in known]
    before = message.format
    message.format = pick(rng, [*words, "32FC1; compressedDepth rvl", "jpeg", "8UC1; png"])
    return bool(message.format != before)


def depth_header(rng: Rng, message: CompressedImage) -> bool:
    """A and B of 32FC1 that are far off; nobody reads the rest, nor any of 16UC1's."""
    a, b = pick(rng, [*[(x, -1009.0) for x in _ODD], *[(10100.0, x) for x in _ODD]])
    head = struct.pack("<i2f", int(rng.integers(-(2**31), 2**31)), a, b)
    message.data = array.array("B", head + message.data.tobytes()[12:])
    return bool(message.format.startswith("32FC1"))


def depth_header_bit(rng: Rng, message: CompressedImage) -> bool:
    """Of A and B, of those bits that move depth by more than noise."""
    at, bit = pick(rng, [(6, 0x80), (7, 1), (7, 0x80), (6, 1), (10, 0x80), (11, 1), (11, 0x80)])
    data = bytearray(message.data.tobytes())
    data[at] ^= bit
    message.data = array.array("B", bytes(data))
    return bool(message.format.startswith("32FC1"))


def depth_png_bytes(rng: Rng, message: CompressedImage) -> bool:
    """A PNG has checksums."""
    data = np.frombuffer(message.data, np.uint8).copy()
    where = np.unique(rng.integers(12 + 8, len(data) - 12, int(rng.integers(1, 30))))
    data[where] ^= rng.integers(1, 256, len(where), dtype=np.uint8)
    message.data = array.array("B", data.tobytes())
    return True


def depth_png_size(rng: Rng, message: CompressedImage) -> bool:
    """Its header speaks of another size, with a right checksum."""
    data = bytearray(message.data.tobytes())
    data[28:36] = int(pick(rng, [1, 7, 640, 5000, 65_000])).to_bytes(4, "big") * 2
    data[41:45] = zlib.crc32(data[24:41]).to_bytes(4, "big")
    message.data = array.array("B", bytes(data))
    return True


def depth_png_kind(rng: Rng, message: CompressedImage) -> bool:
    """A right PNG of 8 bit, of colour, or without a distance."""
    width, height = SIZE_WH
    shapes = [((height, width), np.uint8), ((height, width, 3), np.uint16)]
    shape, kind = pick(rng, [*shapes, ((height, width), np.uint16)])
    fill = 0 if len(shape) == 2 and kind is np.uint16 else 90
    png = cv2.imencode(".png", np.full(shape, fill, kind))[1].tobytes()
    message.data = array.array("B", message.data.tobytes()[:12] + png)
    return True


def depth_rvl_bytes(rng: Rng, message: CompressedImage) -> bool:
    """Without a checksum most of it is other pixels; the rest must not break anything."""
    data = np.frombuffer(message.data, np.uint8).copy()
    where = np.unique(rng.integers(12 + 8, len(data), int(rng.integers(1, 30))))
    data[where] ^= rng.integers(1, 256, len(where), dtype=np.uint8)
    message.data = array.array("B", data.tobytes())
    return False


def depth_rvl_size(rng: Rng, message: CompressedImage) -> bool:
    """The header speaks of another size."""
    sides = [(0, 0), (640, 47), (48, 640), (65_000, 65_000), (_UINT32, _UINT32), (320, 96)]
    data = bytearray(message.data.tobytes())
    data[12:20] = struct.pack("<II", *pick(rng, sides))
    message.data = array.array("B", bytes(data))
    return True


_ODD = (np.nan, np.inf, -np.inf, 0.0, -5.0, 1.0, 1e30, 1e-30, 777.7)

# --- CameraInfo

_WILD = (np.nan, np.inf, -np.inf, 1e300, -1e300, 1e12, -1e12)


def focal_length(rng: Rng, message: CameraInfo) -> bool:
    axis = int(rng.integers(2))
    value = pick(rng, [*_WILD, 0.0, -615.0, 1e-300, 1e-3, 1e9])
    message.k[4 * axis] = message.p[5 * axis] = value
    return True


def principal_point(rng: Rng, message: CameraInfo) -> bool:
    axis = int(rng.integers(2))
    message.k[2 + 3 * axis] = message.p[2 + 4 * axis] = pick(rng, [*_WILD, -1e5, 1e5])
    return True


def other_elements(rng: Rng, message: CameraInfo) -> bool:
    """Skew and the last row."""
    row, column = pick(rng, [(0, 1), (1, 0), (2, 0), (2, 1), (2, 2)])
    value = pick(rng, [*_WILD, 0.5, -2.0])
    message.k[3 * row + column] = message.p[4 * row + column] = value
    return True


def coefficients(rng: Rng, message: CameraInfo) -> bool:
    values = list(message.d)
    values[int(rng.integers(len(values)))] = pick(rng, [*_WILD, 1e6, -1e6])
    message.d = values
    return True


def number_of_coefficients(rng: Rng, message: CameraInfo) -> bool:
    message.d = [0.01] * int(pick(rng, [1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 20_000]))
    return True


def distortion_model(rng: Rng, message: CameraInfo) -> bool:
    """Not there, or one that wants another number of coefficients."""
    wrong = ["magic", "PLUMB_BOB", "rational_polynomial", "equidistant", *_WORDS]
    message.distortion_model = pick(rng, wrong)
    return True


def info_size(rng: Rng, message: CameraInfo) -> bool:
    name = pick(rng, ["width", "height"])
    wrong = [0, 1, getattr(message, name) + 1, 65535, _UINT32]
    setattr(message, name, pick(rng, wrong))
    return True


def binning(rng: Rng, message: CameraInfo) -> bool:
    value = int(pick(rng, [0, 1, 2, 3, 1000, _UINT32]))
    message.binning_x = value
    message.binning_y = int(pick(rng, [value, 1]))
    return value > 1


def region(rng: Rng, message: CameraInfo) -> bool:
    """Beyond the sensor, or of another size than the image."""
    roi = RegionOfInterest()
    name = pick(rng, ["x_offset", "y_offset", "width", "height"])
    setattr(roi, name, int(pick(rng, [1, 47, 641, 10_000, _UINT32])))
    message.roi = roi
    return True


def nothing(rng: Rng, message: Any) -> bool:
    return False


ANY = (header, stamp_range, stamp_jump)
IMAGE = (cut, lengthen, step, size, encoding, flipped_bytes, whole_other)
BY_STREAM: dict[str, tuple[Callable[[Rng, Any], bool], ...]] = {
    "color": (*ANY, *IMAGE, channel_order),
    "depth": (*ANY, *IMAGE, byte_order, no_depth, holes),
    "compressed": (
        *ANY, cut, nonsense, beheaded, format_text, compressed_bytes, jpeg_header, cut_scan,
        compressed_size,
    ),
    "compressed_depth": (
        *ANY, cut, nonsense, beheaded, depth_format, depth_header, depth_header_bit,
        depth_png_bytes, depth_png_size, depth_png_kind,
    ),
    "rvl_depth": (
        *ANY, cut, lengthen, nonsense, beheaded, depth_format, depth_header, depth_header_bit,
        depth_rvl_bytes, depth_rvl_size,
    ),
    "info": (
        *ANY, focal_length, principal_point, other_elements, coefficients, number_of_coefficients,
        distortion_model, info_size, binning, region, nothing,
    ),
}  # fmt: skip
DISTORTION = (coefficients, number_of_coefficients, distortion_model)
