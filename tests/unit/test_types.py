"""What flows is checked when built: each wrong value gets one clear message."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from heatnet_ros.errors import DataError
from heatnet_ros.types import Detection, Distortion, Frame, Keypoints, PoseEstimate

RGB = np.zeros((6, 8, 3), np.uint8)
K = np.array([[600.0, 0, 4], [0, 600, 3], [0, 0, 1]])


@pytest.mark.parametrize(
    ("model", "count"),
    [("none", 0), ("plumb_bob", 4), ("plumb_bob", 5), ("rational_polynomial", 8),
     ("rational_polynomial", 12), ("rational_polynomial", 14), ("equidistant", 4)],
)  # fmt: skip
def test_known_distortions(model: str, count: int) -> None:
    distortion = Distortion(model, (0.0,) * count)
    assert distortion.is_zero == (model != "equidistant")
    if count:
        assert not Distortion(model, (*(0.0,) * (count - 1), 0.1)).is_zero


@pytest.mark.parametrize(
    ("model", "coefficients", "message"),
    [
        ("fov", (0.9,), r"'fov' is not supported; expected one of none, plumb_bob.*rectify"),
        ("plumb_bob", (0.1,), r"'plumb_bob' expects 4 or 5 coefficients, got 1.*CameraInfo\.d"),
        ("equidistant", (0.1,) * 5, "expects 4 coefficients, got 5"),
        ("none", (0.1,), "expects 0 coefficients, got 1"),
        ("plumb_bob", (0.1, np.nan, 0, 0), "must be finite"),
    ],
)
def test_wrong_distortions(model: str, coefficients: tuple[float, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Distortion(model, coefficients)


def test_frame_knows_its_size_and_is_frozen() -> None:
    frame = Frame(RGB, K, np.ones((6, 8), np.float32), stamp_ns=5, frame_id="camera")
    assert frame.size_hw == (6, 8)
    with pytest.raises(dataclasses.FrozenInstanceError):
        frame.stamp_ns = 6  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rgb": RGB[..., 0]}, r"expected HxWx3 uint8, got \(6, 8\) uint8"),
        ({"rgb": RGB.astype(np.float32)}, r"expected HxWx3 uint8, got .* float32"),
        ({"rgb": np.zeros((6, 8, 4), np.uint8)}, r"got \(6, 8, 4\)"),
        ({"K": np.zeros((3, 3))}, "uncalibrated.*CameraInfo"),
        ({"K": np.diag([600.0, -1, 1])}, "uncalibrated"),
        ({"K": np.full((3, 3), np.nan)}, "expected finite 3x3"),
        ({"K": np.eye(4)}, "expected finite 3x3"),
        ({"K": np.array([[600.0, 3, 4], [0, 600, 3], [0, 0, 1]])}, "no skew"),
        ({"K": np.array([[600.0, 0, 4], [0, 600, 3], [0, 0, 0]])}, "0, 0, 1 in its last row"),
        ({"depth_m": np.ones((3, 4), np.float32)}, "Depth is 4x3, colour is 8x6.*align_depth"),
        ({"depth_m": np.ones((6, 8), np.uint16)}, "float32 metres, got uint16"),
        ({"depth_m": np.ones((6, 8))}, "float32 metres, got float64"),
    ],
)
def test_wrong_frames(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Frame(**{"rgb": RGB, "K": K, **changes})


@pytest.mark.parametrize(
    ("box", "score", "message"),
    [
        ((5, 0, 5, 4), 0.5, "'mug' is empty"),
        ((5, 4, 6, 0), 0.5, "'mug' is empty"),
        ((0, 0, np.inf, 4), 0.5, "not finite"),
        ((0, 0, np.nan, 4), 0.5, "not finite"),
        ((0, 0, 4, 4), 1.1, r"'mug' must be in 0\.\.1, got 1\.1"),
        ((0, 0, 4, 4), np.nan, "must be in"),
    ],
)
def test_wrong_detections(box: tuple[float, ...], score: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Detection("mug", box, score)  # type: ignore[arg-type]


def test_wrong_keypoints() -> None:
    with pytest.raises(DataError, match=r"expected Kx2, got \(5, 3\)"):
        Keypoints(np.zeros((5, 3)), np.ones(5))
    with pytest.raises(DataError, match=r"expected \(5,\), got \(4,\)"):
        Keypoints(np.zeros((5, 2)), np.ones(4))


def _turned(R: np.ndarray) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = R
    return T


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"T_camera_object": np.eye(3)}, "'mug': expected a finite 4x4"),
        ({"T_camera_object": np.full((4, 4), np.nan)}, "expected a finite 4x4"),
        ({"T_camera_object": _turned(1.001 * np.eye(3))}, "not orthonormal"),
        ({"T_camera_object": _turned(np.diag([1.0, 1, -1]))}, "not orthonormal"),
        ({"score": -0.1}, "must be in"),
        ({"score": np.nan}, "must be in"),
        ({"covariance": np.eye(3)}, r"expected 6x6, got \(3, 3\)"),
    ],
)
def test_wrong_poses(changes: dict[str, Any], message: str) -> None:
    good = {
        "object_id": "mug", "T_camera_object": np.eye(4), "score": 0.5, "inlier_ratio": 1.0,
        "reprojection_px": 1.0, "source": "test",
    }  # fmt: skip
    assert PoseEstimate(**good).instance == 0
    with pytest.raises(DataError, match=message):
        PoseEstimate(**{**good, **changes})
