"""Image and calibration files: what a person hands to the pipeline without a camera driver."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from heatnet_ros.config import load_yaml
from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.types import DepthF32, Distortion, FloatArray, ImageU8

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".tif", ".tiff")


@dataclass(frozen=True, eq=False)
class CameraFile:
    """A calibration: K 3x3; size_wh in pixels or None where the source does not say."""

    K: FloatArray
    distortion: Distortion
    size_wh: tuple[int, int] | None
    source: str

    def check_size(self, size_hw: tuple[int, int], image: Path) -> None:
        """Raise DataError unless the calibration was made for images of this size."""
        if self.size_wh is not None and self.size_wh != (size_hw[1], size_hw[0]):
            raise DataError(
                f"Image {image} is {size_hw[1]}x{size_hw[0]}, the calibration {self.source} is for "
                f"{self.size_wh[0]}x{self.size_wh[1]}. Give the calibration of this resolution."
            )


def list_images(folder: Path) -> list[Path]:
    """Image files of a folder, sorted by name."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)


def load_rgb(path: Path) -> ImageU8:
    """Read a colour image as HxWx3 uint8 RGB. Raises DataError naming the file."""
    _check_exists(path, "Image")
    content = np.fromfile(path, np.uint8)
    image = None
    if len(content) and not _is_cut_short(content.tobytes()):
        image = cv2.imdecode(content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise DataError(
            f"Image {path} cannot be decoded; expected one of {', '.join(IMAGE_SUFFIXES)}. "
            "The file is damaged, cut short or empty: copy it again."
        )
    return np.ascontiguousarray(image[:, :, ::-1])


def _is_cut_short(content: bytes) -> bool:
    """Whether a JPEG ends within its picture: OpenCV fills the rest with grey and says nothing.

    The bytes of a picture never hold a marker, so the end (FFD9) must follow the last scan (FFDA).
    """
    is_jpeg = content.startswith(b"\xff\xd8")
    return is_jpeg and content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda")


def load_depth_m(path: Path, metres_per_unit: float, size_hw: tuple[int, int]) -> DepthF32:
    """Read a one-channel depth image (uint16 or float) as HxW float32 metres; 0 is invalid.

    Raises DataError when the file is missing or damaged, has several channels or 8 bits, or has
    another size than the colour image (``size_hw``).
    """
    _check_exists(path, "Depth image")
    depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if depth is None:
        raise DataError(
            f"Depth image {path} cannot be decoded. The file is damaged: copy it again."
        )
    if depth.ndim != 2 or depth.dtype == np.uint8:
        raise DataError(
            f"Depth image {path}: expected one channel of 16 bit or float, got shape {depth.shape} "
            f"{depth.dtype}. Is this a coloured picture of the depth? Give the raw one."
        )
    if depth.shape != size_hw:
        raise DataError(
            f"Depth image {path} is {depth.shape[1]}x{depth.shape[0]}, the colour image is "
            f"{size_hw[1]}x{size_hw[0]}; expected the same size. Align depth to colour."
        )
    return np.asarray(depth * np.float32(metres_per_unit), np.float32)


def _check_exists(path: Path, what: str) -> None:
    if not path.is_file():
        raise DataError(f"{what} {path} does not exist. Check the path.")


def load_camera_file(text: str) -> CameraFile:
    """Read a calibration: ``fx,fy,cx,cy``, a BOP camera.json or a ROS calibration YAML.

    Numbers are pixels, with (0, 0) the centre of the top-left pixel. Raises ConfigError.
    """
    if "," in text:
        try:
            fx, fy, cx, cy = (float(part) for part in text.split(","))
        except ValueError:
            raise ConfigError(
                f"Camera '{text}': expected four numbers fx,fy,cx,cy in pixels, or a file."
            ) from None
        return CameraFile(_matrix(fx, fy, cx, cy, text), Distortion(), None, text)
    path = Path(text)
    content = load_yaml(path, "Camera file")  # JSON is YAML
    try:
        if "camera_matrix" in content:
            return _parse_ros_calibration(content, path)
        size = None
        if "width" in content and "height" in content:
            size = (int(content["width"]), int(content["height"]))
        fx, fy, cx, cy = (float(content[key]) for key in ("fx", "fy", "cx", "cy"))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"Camera file {path}: missing or malformed {error}. Expected a BOP camera.json (fx, fy,"
            " cx, cy, width, height) or a ROS calibration (image_width, camera_matrix, ...)."
        ) from error
    return CameraFile(_matrix(fx, fy, cx, cy, str(path)), Distortion(), size, str(path))


def _parse_ros_calibration(content: dict[str, Any], path: Path) -> CameraFile:
    """Parse what camera_calibration and camera_info_manager write."""
    k = [float(value) for value in content["camera_matrix"]["data"]]
    size = (int(content["image_width"]), int(content["image_height"]))
    distortion = Distortion()
    if "distortion_coefficients" in content:
        values = [float(value) for value in content["distortion_coefficients"]["data"]]
        distortion = Distortion(str(content["distortion_model"]), tuple(values))
    return CameraFile(_matrix(k[0], k[4], k[2], k[5], str(path)), distortion, size, str(path))


def _matrix(fx: float, fy: float, cx: float, cy: float, where: str) -> FloatArray:
    if not (fx > 0 and fy > 0 and np.all(np.isfinite([fx, fy, cx, cy]))):
        raise ConfigError(
            f"Camera {where}: focal lengths must be above 0 pixels, got fx {fx}, fy {fy}, "
            f"cx {cx}, cy {cy}. The camera is uncalibrated: calibrate it."
        )
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
