"""sensor_msgs -> arrays. Every error names the topic, what was expected, what came and the remedy.

Depth (REP-118): 32FC1 metres, 16UC1 or mono16 millimetres. Millimetres become metres here.

Only fields are read, so the messages of a bag, which are no ROS types, are converted as well:
sensor_msgs is imported where a message is made.
"""

from __future__ import annotations

import array
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from heatnet_ros.errors import DataError
from heatnet_ros.geometry import se3
from heatnet_ros.geometry.camera import scale_points
from heatnet_ros.ros.encoded_images import JPEG_START, is_cut_off, read_size
from heatnet_ros.ros.plausibility import (
    check_byte_order,
    check_coefficients,
    check_intrinsics,
    check_padding,
)
from heatnet_ros.types import DepthF32, Distortion, FloatArray, ImageU8

if TYPE_CHECKING:
    from builtin_interfaces.msg import Time
    from sensor_msgs.msg import CameraInfo, CompressedImage, Image

_COLOR_CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}
_TO_RGB = {
    "bgr8": cv2.COLOR_BGR2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
}
_DEPTH_TYPES = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}
# 32FC1 whose median is beyond any camera's range holds millimetres
_MAX_MEDIAN_DEPTH_M = 100.0
# CameraInfo and depth describe the pixels as the sensor delivers them: nothing may turn them
_IMREAD_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
# cv_bridge lets through what numpy, OpenCV and its own compiled part raise
_CV_BRIDGE_FAULTS = (
    ValueError, TypeError, RuntimeError, ImportError, AttributeError, LookupError, cv2.error,
)  # fmt: skip


def stamp_to_ns(stamp: Any) -> int:
    """builtin_interfaces/Time -> nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def ns_to_stamp(stamp_ns: int) -> Time:
    """Nanoseconds -> builtin_interfaces/Time."""
    from builtin_interfaces.msg import Time

    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    return Time(sec=seconds, nanosec=nanoseconds)


def pose_to_matrix(pose: Any) -> FloatArray:
    """geometry_msgs/Pose -> 4x4, metres."""
    p, q = pose.position, pose.orientation
    R = se3.rotation_from_quaternion(np.array([q.x, q.y, q.z, q.w]))
    return se3.make_transform(R, np.array([p.x, p.y, p.z]))


def to_sigma_mm_deg(covariance: Any) -> tuple[float, float]:
    """36 numbers as geometry_msgs orders them -> largest standard deviation of any direction.

    In mm and degrees; 0 where the covariance says unknown, NaN where it is none.
    """
    full = np.asarray(covariance, np.float64).reshape(6, 6)
    with np.errstate(invalid="ignore"):
        move, turn = (np.sqrt(np.linalg.eigvalsh(full[i : i + 3, i : i + 3])[-1]) for i in (0, 3))
    return 1e3 * float(move), float(np.degrees(turn))


def image_to_rgb(message: Image, topic: str) -> ImageU8:
    """Colour image -> HxWx3 uint8 RGB; rgb8 is not copied.

    Raises DataError on truncated data, a step smaller than the row or an unknown encoding.
    """
    channels = _COLOR_CHANNELS.get(message.encoding)
    if channels is None:
        return _convert_by_cv_bridge(message, "rgb8", topic, ", ".join(_COLOR_CHANNELS))
    pixels = _view(message, np.dtype(np.uint8), channels, topic)
    if message.encoding == "rgb8":
        return np.ascontiguousarray(pixels)
    return np.asarray(cv2.cvtColor(pixels, _TO_RGB[message.encoding]), np.uint8)


def compressed_to_rgb(
    message: CompressedImage, topic: str, size_wh: tuple[int, int] | None = None
) -> ImageU8:
    """JPEG or PNG -> HxWx3 uint8 RGB. Raises DataError on damaged or truncated data.

    ``format`` is what image_transport writes (``rgb8; jpeg compressed bgr8``) or a bare ``jpeg``.
    ``size_wh``: nothing of another size is decoded: a header can claim any.
    """
    source, _, compression = message.format.partition(";")
    if source.startswith("bayer"):
        raise DataError(
            f"{topic}: format '{_clip(message.format)}' is a Bayer pattern, expected colour or "
            "grey. Remap color/image_raw to the debayered image (image_proc: .../image_color)."
        )
    data = np.frombuffer(message.data, np.uint8)
    try:
        size, fault = read_size(data.tobytes()), "are truncated or damaged"
    except ValueError:
        size, fault = None, "begin like neither"
    if size is not None and size_wh is not None and size != size_wh:
        raise DataError(
            f"{topic}: the image is {size[0]}x{size[1]}, CameraInfo describes one of "
            f"{size_wh[0]}x{size_wh[1]}. Publish the CameraInfo of this resolution."
        )
    bgr = cv2.imdecode(data, _IMREAD_FLAGS) if size is not None else None
    if bgr is not None and data[0] == JPEG_START[0] and is_cut_off(np.asarray(bgr, np.uint8)):
        bgr, fault = None, "end before the lowest rows"
    if bgr is None or (bgr.shape[1], bgr.shape[0]) != size:
        raise DataError(
            f"{topic}: expected a whole JPEG or PNG, got {len(data)} bytes of format "
            f"'{_clip(message.format)}' that {fault}. Check the publisher's image_transport and "
            "the link."
        )
    if "compressed rgb" in compression:  # red and blue were stored exchanged; else OpenCV's order
        return np.asarray(bgr, np.uint8)
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def image_to_depth_m(message: Image, topic: str) -> DepthF32:
    """Depth image -> HxW float32 metres, invalid pixels 0, NaN or Inf; native 32FC1 is not copied.

    Raises DataError on truncated data, a wrong step, an unknown encoding, depth without a single
    valid pixel, or 32FC1 in millimetres.
    """
    kind = _DEPTH_TYPES.get(message.encoding)
    if kind is None:
        values = _convert_by_cv_bridge(message, "passthrough", topic, ", ".join(_DEPTH_TYPES))
        if values.ndim != 2 or values.dtype not in (np.uint16, np.float32):
            raise DataError(
                f"{topic}: encoding '{_clip(message.encoding)}' is no depth; expected one of "
                f"{', '.join(_DEPTH_TYPES)}. Remap depth/image_raw to the aligned depth topic."
            )
    else:
        order = ">" if message.is_bigendian else "<"
        values = _view(message, np.dtype(order + kind), 1, topic)
        check_byte_order(values, topic)
    if values.dtype.kind == "u":
        depth = values.astype(np.float32)
        depth *= np.float32(1e-3)
    else:
        depth = values.astype(np.float32, copy=False)
    check_depth(depth, topic)
    return depth


def check_depth(depth_m: DepthF32, topic: str) -> None:
    """Raise DataError where no pixel is valid, or where the values must be millimetres."""
    valid = np.isfinite(depth_m) & (depth_m > 0)
    if not valid.any():
        raise DataError(
            f"{topic}: depth has no valid pixel, all {depth_m.size} are 0, NaN or Inf. Expected "
            "distances. Check the camera's range, its emitter and that nothing covers it."
        )
    median = float(np.median(depth_m[::8, ::8][valid[::8, ::8]])) if valid[::8, ::8].any() else 0.0
    if median > _MAX_MEDIAN_DEPTH_M:
        raise DataError(
            f"{topic}: the median depth is {median:.0f} m; 32FC1 must be metres (REP-118). Are "
            "these millimetres? Publish metres, or 16UC1."
        )


def _check_length(message: Image, expected: int, topic: str) -> None:
    size = f"{message.width}x{message.height}"
    if message.height == 0 or message.width == 0:
        raise DataError(f"{topic}: image is empty ({size}). Check the camera driver.")
    described = f"for {size} '{_clip(message.encoding)}' with step {message.step}"
    if len(message.data) < expected:
        raise DataError(
            f"{topic}: image data is truncated, got {len(message.data)} bytes, expected {expected} "
            f"{described}. Check the publisher."
        )
    whole = message.step * message.height
    if len(message.data) not in (expected, whole):  # the last row may lack its padding
        raise DataError(
            f"{topic}: image data is of another length, got {len(message.data)} bytes, expected "
            f"{whole} {described}: the pixels are elsewhere than the message says. Check the "
            "publisher."
        )


def _view(message: Image, dtype: np.dtype[Any], channels: int, topic: str) -> NDArray[np.generic]:
    """HxW or HxWxC view of the data; padding at the end of rows is skipped."""
    height, width, step = message.height, message.width, message.step
    row = width * channels * dtype.itemsize
    if step < row:
        raise DataError(
            f"{topic}: step is {step}, expected at least {row} bytes for {width} pixels of "
            f"'{message.encoding}'. The publisher fills the message wrongly."
        )
    check_padding(step, row, f"{width} pixels of '{message.encoding}'", topic)
    _check_length(message, step * (height - 1) + row, topic)
    shape: tuple[int, ...] = (height, width)
    strides: tuple[int, ...] = (step, channels * dtype.itemsize)
    if channels > 1:
        shape, strides = (*shape, channels), (*strides, dtype.itemsize)
    return np.ndarray(shape, dtype, buffer=message.data, strides=strides)


def _convert_by_cv_bridge(message: Image, encoding: str, topic: str, known: str) -> NDArray[Any]:
    """Unusual encodings go through cv_bridge where it is installed."""
    _check_length(message, message.step * message.height, topic)
    try:
        from cv_bridge import CvBridge
    except (ImportError, AttributeError) as error:  # the latter: built for another numpy
        raise DataError(
            f"{topic}: encoding '{_clip(message.encoding)}' needs cv_bridge, which is not "
            f"installed or does not load ({error}); without it: {known}. Install "
            "ros-$ROS_DISTRO-cv-bridge or change the encoding (or the topic: is depth remapped to "
            "colour?)."
        ) from error
    try:
        return np.asarray(CvBridge().imgmsg_to_cv2(message, desired_encoding=encoding))
    except _CV_BRIDGE_FAULTS as error:  # CvBridgeError is a TypeError
        raise DataError(
            f"{topic}: cv_bridge cannot convert '{_clip(message.encoding)}' to '{encoding}': "
            f"{error}. Publish one of {known}."
        ) from error


def camera_info_to_intrinsics(
    info: CameraInfo, rectified: bool, topic: str
) -> tuple[FloatArray, Distortion]:
    """CameraInfo -> (3x3 K of the image as published, distortion); binning and ROI applied.

    ``rectified``: P and no distortion, else K and D. Raises DataError where uncalibrated, with
    skew, or with another last row than 0, 0, 1.
    """
    K = np.array(info.p if rectified else info.k, np.float64).reshape(3, -1)
    name = "P" if rectified else "K"
    if not (np.all(np.isfinite(K)) and K[0, 0] > 0 and K[1, 1] > 0):
        raise DataError(
            f"{topic}: {name} has focal lengths {K[0, 0]:g}, {K[1, 1]:g}, expected > 0: the camera "
            "is uncalibrated. Calibrate it (camera_calibration) or load its calibration file"
            + (", or set rectified: false." if rectified else ".")
        )
    if rectified and np.any(K[:, 3] != 0):
        raise DataError(
            f"{topic}: P has the offset {K[:, 3].tolist()}, expected 0: this is the second camera "
            "of a stereo pair. Use the first camera's image and camera_info."
        )
    K = K[:, :3].copy()
    if K[0, 1] != 0 or K[1, 0] != 0 or K[2].tolist() != [0.0, 0.0, 1.0]:
        raise DataError(
            f"{topic}: {name} is {K.ravel().tolist()}, expected fx, 0, cx, 0, fy, cy, 0, 0, 1: "
            "skew and other last rows are not supported. Calibrate the camera anew "
            "(camera_calibration) or mend what fills CameraInfo."
        )
    check_intrinsics(info, K, name, topic)
    for axis, (offset, binning) in enumerate(
        ((info.roi.x_offset, info.binning_x), (info.roi.y_offset, info.binning_y))
    ):
        scale = 1.0 / max(binning, 1)
        K[axis, axis] *= scale
        K[axis, 2] = scale_points(K[axis, 2] - offset, scale)
    if rectified or not len(info.d):
        return K, Distortion()
    check_coefficients(info.d, topic)
    try:
        return K, Distortion(_clip(info.distortion_model), tuple(info.d))
    except DataError as error:
        raise DataError(f"{topic}: {error}") from error


def image_size_of(info: CameraInfo) -> tuple[int, int]:
    """Width and height of the image that a CameraInfo describes, after ROI and binning."""
    width = info.roi.width or info.width
    height = info.roi.height or info.height
    return width // max(info.binning_x, 1), height // max(info.binning_y, 1)


def _clip(text: str) -> str:
    """What a message says of itself may be of any length."""
    return text if len(text) <= 40 else f"{text[:40]}..."


def array_to_image(pixels: NDArray[np.generic], encoding: str) -> Image:
    """HxW or HxWxC array -> Image; the caller sets the header."""
    from sensor_msgs.msg import Image

    pixels = np.ascontiguousarray(pixels)
    message = Image(encoding=encoding, height=pixels.shape[0], width=pixels.shape[1])
    message.step = pixels.strides[0]
    # array.array is what the setter takes without checking every byte in Python
    message.data = array.array("B", pixels.tobytes())
    return message
