"""Cameras and image regions. The only module that knows where a pixel's centre is.

Pixel (0, 0) is the centre of the top-left pixel, so scaling an image by s maps a point to
``(x + 0.5) * s - 0.5``; points, cx and cy alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from heatnet_ros.errors import DataError
from heatnet_ros.types import Distortion, FloatArray

NO_DISTORTION = Distortion()


def project(
    points_camera_m: FloatArray, K: FloatArray, distortion: Distortion = NO_DISTORTION
) -> FloatArray:
    """Project points (N, 3) in the camera frame to pixels (N, 2); z <= 0 gives NaN."""
    points = np.asarray(points_camera_m, np.float64).reshape(-1, 3)
    behind = points[:, 2] <= 0
    xy = points[:, :2] / np.where(behind, np.nan, points[:, 2])[:, None]
    if not distortion.is_zero and len(points):
        safe = np.where(behind[:, None], [0.0, 0.0, 1.0], points).reshape(-1, 1, 3)
        D, zero = np.asarray(distortion.coefficients), np.zeros(3)
        if distortion.model == "equidistant":
            pixels = cv2.fisheye.projectPoints(safe, zero, zero, K, D)[0].reshape(-1, 2)
        else:
            pixels = cv2.projectPoints(safe, zero, zero, K, D)[0].reshape(-1, 2)
        return np.asarray(np.where(behind[:, None], np.nan, pixels))
    return np.asarray(xy @ K[:2, :2].T + K[:2, 2])


def undistort_points(points_px: FloatArray, K: FloatArray, distortion: Distortion) -> FloatArray:
    """Move pixels (N, 2) of the distorted image to where an ideal pinhole with K sees them."""
    points = np.asarray(points_px, np.float64).reshape(-1, 1, 2)
    if distortion.is_zero or not len(points):
        return points.reshape(-1, 2)
    D = np.asarray(distortion.coefficients)
    if distortion.model == "equidistant":
        return np.asarray(cv2.fisheye.undistortPoints(points, K, D, P=K)).reshape(-1, 2)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-9)
    out = cv2.undistortPointsIter(points, K, D, np.eye(3), K, criteria)
    return np.asarray(out).reshape(-1, 2)


def backproject(
    points_px: FloatArray,
    depth_m: FloatArray,
    K: FloatArray,
    distortion: Distortion = NO_DISTORTION,
) -> FloatArray:
    """Lift pixels (N, 2) with depth along z (N,) to points (N, 3) in the camera frame."""
    ideal = undistort_points(points_px, K, distortion)
    xy = (ideal - K[:2, 2]) / [K[0, 0], K[1, 1]]  # cameras here have no skew
    return np.column_stack([xy, np.ones(len(xy))]) * np.asarray(depth_m).reshape(-1, 1)


def scale_points(points_px: FloatArray, scale: float) -> FloatArray:
    """Where pixels (..., 2) lie after the image is resized by ``scale``."""
    return np.asarray((points_px + 0.5) * scale - 0.5)


@dataclass(frozen=True)
class Crop:
    """A square region of an image, resized to ``size_px``, padded where it leaves the image.

    (left_px, top_px) is the region's corner in continuous coordinates, whose origin is the outer
    corner of the top-left pixel. The aspect ratio is kept.
    """

    left_px: float
    top_px: float
    side_px: float
    size_px: int

    def __post_init__(self) -> None:
        if not (self.side_px > 0 and self.size_px > 0 and np.isfinite(self.left_px + self.top_px)):
            raise DataError(f"Crop is empty or not finite: {self}.")

    @property
    def scale(self) -> float:
        """Crop pixels per image pixel."""
        return self.size_px / self.side_px

    def to_crop(self, points_px: FloatArray) -> FloatArray:
        """Image pixels (..., 2) -> crop pixels."""
        return np.asarray((points_px + 0.5 - [self.left_px, self.top_px]) * self.scale - 0.5)

    def to_image(self, points_px: FloatArray) -> FloatArray:
        """Crop pixels (..., 2) -> image pixels."""
        return np.asarray((points_px + 0.5) / self.scale + [self.left_px, self.top_px] - 0.5)

    def intrinsics(self, K: FloatArray) -> FloatArray:
        """3x3 camera matrix of the crop: projecting with it gives crop pixels."""
        out = K.astype(np.float64).copy()
        out[:2, :2] *= self.scale
        out[:2, 2] = self.to_crop(K[:2, 2])
        return out

    def warp(self, image: NDArray[np.generic], nearest: bool = False) -> NDArray[np.generic]:
        """Cut the region out of an HxW or HxWxC image; outside is 0.

        ``nearest`` keeps values as they are (depth must never be blended over an edge).
        """
        offset = self.to_crop(np.zeros(2))
        M = np.array([[self.scale, 0.0, offset[0]], [0.0, self.scale, offset[1]]])
        flags = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
        return np.asarray(cv2.warpAffine(image, M, (self.size_px, self.size_px), flags=flags))


def crop_around_box(
    bbox_xyxy_px: tuple[float, float, float, float], size_px: int, margin: float
) -> Crop:
    """Square crop centred on a box, its side the box's longer side times ``margin``."""
    x0, y0, x1, y1 = bbox_xyxy_px
    side = max(x1 - x0, y1 - y0) * margin
    # pixel coordinates + 0.5 = the continuous coordinates that a Crop is given in
    return Crop((x0 + x1 + 1 - side) / 2, (y0 + y1 + 1 - side) / 2, side, size_px)


@dataclass(frozen=True)
class Letterbox:
    """An image resized with its aspect kept and padded to a fixed network input."""

    scale: float
    pad_left_px: int
    pad_top_px: int
    resized_wh: tuple[int, int]
    size_hw: tuple[int, int]

    def apply(self, image: NDArray[np.uint8], fill: int = 114) -> NDArray[np.uint8]:
        """HxWx3 uint8 -> size_hw x 3 uint8."""
        interpolation = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_LINEAR
        resized = cv2.resize(image, self.resized_wh, interpolation=interpolation)
        out = np.full((*self.size_hw, 3), fill, np.uint8)
        x, y, (w, h) = self.pad_left_px, self.pad_top_px, self.resized_wh
        out[y : y + h, x : x + w] = resized
        return out

    def to_image(self, points_px: FloatArray) -> FloatArray:
        """Network input pixels (..., 2), as box edges (continuous), -> image pixels."""
        return np.asarray((points_px - [self.pad_left_px, self.pad_top_px]) / self.scale_xy - 0.5)

    @property
    def scale_xy(self) -> FloatArray:
        """Exact scale per axis after rounding the resized image to whole pixels."""
        return np.asarray(self._scale_xy)

    _scale_xy: tuple[float, float] = (1.0, 1.0)


def fit_letterbox(image_hw: tuple[int, int], size_hw: tuple[int, int]) -> Letterbox:
    """Largest letterbox of an image in the network's input, centred."""
    scale = min(size_hw[0] / image_hw[0], size_hw[1] / image_hw[1])
    # a strip of an image still has a row
    w, h = max(round(image_hw[1] * scale), 1), max(round(image_hw[0] * scale), 1)
    left, top = (size_hw[1] - w) // 2, (size_hw[0] - h) // 2
    return Letterbox(scale, left, top, (w, h), size_hw, (w / image_hw[1], h / image_hw[0]))
