"""The values that flow through the pipeline: frozen, validated when built.

Frames of reference: ``camera`` is the optical frame (x right, y down, z forward, REP-103).
``T_a_b`` maps points of b into a. Pixel (0, 0) is the centre of the top-left pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.errors import DataError

FloatArray = NDArray[np.float64]
ImageU8 = NDArray[np.uint8]
DepthF32 = NDArray[np.float32]

# what every Frame's depth must be, and how the drivers do it
ALIGN_DEPTH = (
    "Publish depth aligned to colour (RealSense: align_depth.enable:=true, Orbbec: "
    "depth_registration:=true) and remap depth/image_raw to it."
)

DISTORTION_MODELS = {
    "none": (0,),
    "plumb_bob": (4, 5),
    "rational_polynomial": (8, 12, 14),
    "equidistant": (4,),
}


@dataclass(frozen=True)
class Distortion:
    """Lens distortion as sensor_msgs/CameraInfo names it.

    ``model`` is one of ``none``, ``plumb_bob``, ``rational_polynomial``, ``equidistant``;
    ``coefficients`` are in OpenCV's order. Raises DataError on an unknown model or a wrong count.
    """

    model: str = "none"
    coefficients: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        counts = DISTORTION_MODELS.get(self.model)
        if counts is None:
            raise DataError(
                f"Distortion model '{self.model}' is not supported; expected one of "
                f"{', '.join(DISTORTION_MODELS)}. Calibrate with one of these or rectify the image."
            )
        if len(self.coefficients) not in counts:
            raise DataError(
                f"Distortion model '{self.model}' expects {' or '.join(map(str, counts))} "
                f"coefficients, got {len(self.coefficients)}. Check CameraInfo.d."
            )
        if not np.all(np.isfinite(self.coefficients)):
            raise DataError(f"Distortion coefficients must be finite, got {self.coefficients}.")

    @property
    def is_zero(self) -> bool:
        """True where the distortion moves no pixel (equidistant always does)."""
        return self.model != "equidistant" and not any(self.coefficients)


@dataclass(frozen=True, eq=False)
class Frame:
    """One synchronised camera frame.

    rgb: HxWx3 uint8. K: 3x3 of the (possibly distorted) image. depth_m: HxW float32 metres aligned
    to the colour image, invalid pixels are 0 or not finite, or None. Raises DataError.
    """

    rgb: ImageU8
    K: FloatArray
    depth_m: DepthF32 | None = None
    distortion: Distortion = field(default_factory=Distortion)
    stamp_ns: int = 0
    frame_id: str = ""

    def __post_init__(self) -> None:
        if self.rgb.ndim != 3 or self.rgb.shape[2] != 3 or self.rgb.dtype != np.uint8:
            raise DataError(
                f"Colour image: expected HxWx3 uint8, got {self.rgb.shape} {self.rgb.dtype}."
            )
        if self.K.shape != (3, 3) or not np.all(np.isfinite(self.K)):
            raise DataError(f"Camera matrix K: expected finite 3x3, got {self.K.tolist()}.")
        if self.K[0, 0] <= 0 or self.K[1, 1] <= 0:
            raise DataError(
                f"Camera matrix K has focal lengths {self.K[0, 0]}, {self.K[1, 1]}; expected > 0. "
                "The camera is uncalibrated: calibrate it or publish its CameraInfo."
            )
        if self.K[0, 1] or self.K[1, 0] or tuple(self.K[2]) != (0.0, 0.0, 1.0):
            raise DataError(
                f"Camera matrix K is {self.K.tolist()}; expected no skew and 0, 0, 1 in its last "
                "row. Calibrate the camera again."
            )
        if self.depth_m is not None:
            if self.depth_m.shape != self.rgb.shape[:2]:
                raise DataError(
                    f"Depth is {self.depth_m.shape[1]}x{self.depth_m.shape[0]}, colour is "
                    f"{self.rgb.shape[1]}x{self.rgb.shape[0]}; expected the same size. "
                    f"{ALIGN_DEPTH}"
                )
            if self.depth_m.dtype != np.float32:
                raise DataError(f"Depth must be float32 metres, got {self.depth_m.dtype}.")

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.rgb.shape[0]), int(self.rgb.shape[1])


@dataclass(frozen=True)
class Detection:
    """Where an object is: library name, box (x0, y0, x1, y1) in image pixels, score 0..1.

    T_camera_expected: 4x4, where an object that is followed is expected to be; the box is around
    it then, and no detector has seen it.
    """

    object_id: str
    bbox_xyxy_px: tuple[float, float, float, float]
    score: float
    T_camera_expected: FloatArray | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        x0, y0, x1, y1 = self.bbox_xyxy_px
        if not (np.all(np.isfinite(self.bbox_xyxy_px)) and x1 > x0 and y1 > y0):
            raise DataError(f"Box of '{self.object_id}' is empty or not finite: {x0, y0, x1, y1}.")
        if not 0.0 <= self.score <= 1.0:
            raise DataError(f"Score of '{self.object_id}' must be in 0..1, got {self.score}.")

    @property
    def followed(self) -> bool:
        """Whether the box comes from the object's last poses."""
        return self.T_camera_expected is not None


ORTHONORMAL = 1e-5  # largest error of R R^T that a rotation may have


@dataclass(frozen=True, eq=False)
class Keypoints:
    """Decoded keypoints: points_px Kx2 in the (distorted) image, confidence K in 0..1."""

    points_px: FloatArray
    confidence: FloatArray

    def __post_init__(self) -> None:
        if self.points_px.ndim != 2 or self.points_px.shape[1] != 2:
            raise DataError(f"Keypoints: expected Kx2, got {self.points_px.shape}.")
        if self.confidence.shape != self.points_px.shape[:1]:
            raise DataError(
                f"Keypoint confidence: expected {self.points_px.shape[:1]}, "
                f"got {self.confidence.shape}."
            )


@dataclass(frozen=True, eq=False)
class PoseEstimate:
    """The pose of one object instance in the camera's optical frame.

    T_camera_object: 4x4, metres. covariance: 6x6 of (x, y, z, rx, ry, rz) in m, rad, rotations
    about the fixed axes of the camera frame, or None where unknown. score: 0..1.
    reprojection_px: RMS over the inlier keypoints, in pixels of the network's crop, of which
    ``crop_scale`` make one image pixel. depth_error_m: median of measured minus
    predicted depth over the visible keypoints, or None without depth.
    """

    object_id: str
    T_camera_object: FloatArray
    score: float
    inlier_ratio: float
    reprojection_px: float
    source: str
    instance: int = 0
    crop_scale: float = 1.0
    covariance: FloatArray | None = None
    depth_error_m: float | None = None
    keypoints: Keypoints | None = None
    detection: Detection | None = None

    def __post_init__(self) -> None:
        T = self.T_camera_object
        if T.shape != (4, 4) or not np.all(np.isfinite(T)):
            raise DataError(f"Pose of '{self.object_id}': expected a finite 4x4, got {T}.")
        R = T[:3, :3]
        # every pose is checked several times a frame: np.allclose takes ten times as long
        if np.abs(R @ R.T - np.eye(3)).max() > ORTHONORMAL or np.linalg.det(R) < 0:
            raise DataError(f"Pose of '{self.object_id}': its rotation is not orthonormal.")
        if not 0.0 <= self.score <= 1.0:
            raise DataError(f"Pose score of '{self.object_id}' must be in 0..1, got {self.score}.")
        if self.covariance is not None and self.covariance.shape != (6, 6):
            raise DataError(f"Pose covariance: expected 6x6, got {self.covariance.shape}.")


class Reason(StrEnum):
    """Why an object that was detected has no pose."""

    TOO_FEW_INLIERS = "too_few_inliers"
    REPROJECTION_HIGH = "reprojection_high"
    DEPTH_DISAGREES = "depth_disagrees"
    SCORE_LOW = "score_low"
    NO_DEPTH = "no_depth"
    SAME_OBJECT = "same_object"


@dataclass(frozen=True)
class Rejection:
    """A detection that got no pose, and why (``detail`` holds the measured number)."""

    object_id: str
    reason: Reason
    detail: str = ""
    detection: Detection | None = None


@dataclass(frozen=True)
class PipelineResult:
    """What one frame gave.

    timings_s: stage name -> seconds. engines: network role -> backend, device and precision
    that really ran, for instance ``{"detector": "openvino CPU bf16"}``. filtered: ``poses`` made
    steady over time, in the same order; empty where that is switched off.
    """

    poses: tuple[PoseEstimate, ...]
    rejected: tuple[Rejection, ...]
    detections: tuple[Detection, ...]
    timings_s: dict[str, float]
    engines: dict[str, str]
    filtered: tuple[PoseEstimate, ...] = ()
