"""Pose from keypoints and depth: exact, where PnP alone fails, behind occluders, determinism."""

from __future__ import annotations

import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest
from fakes import BACKGROUND_M, LIBRARY, SIZE_HW, K, pose, render_depth

from heatnet_ros.errors import DataError
from heatnet_ros.geometry import pnp, se3
from heatnet_ros.geometry.camera import NO_DISTORTION, project
from heatnet_ros.geometry.depth_solve import NOISE, PoseQuery, solve_pnp_depth
from heatnet_ros.geometry.joint import DepthImage, noise_m
from heatnet_ros.geometry.pnp import PnpSolution, solve_pnp
from heatnet_ros.types import Distortion, FloatArray

THRESHOLD_PX = 6.0


def _pixels(name: str, T: FloatArray, noise_px: float = 0.0, seed: int = 0) -> FloatArray:
    points = project(se3.transform(T, LIBRARY[name].keypoints_m), K)
    return points + np.random.default_rng(seed).normal(0, 1, points.shape) * noise_px


def _solve(
    name: str,
    px: FloatArray,
    depth_m: np.ndarray,
    distortion: Distortion = NO_DISTORTION,
    threshold_px: float = THRESHOLD_PX,
    expected: FloatArray | None = None,
) -> PnpSolution | None:
    model, weights = LIBRARY[name], np.ones(len(px))
    image = DepthImage(depth_m, K, distortion)
    query = PoseQuery(
        model.keypoints_m, px, weights, threshold_px, model.surface, model.diameter_m, expected
    )
    return solve_pnp_depth([query], image)[0]


def _plain(name: str, px: FloatArray) -> PnpSolution | None:
    return solve_pnp(LIBRARY[name].keypoints_m, px, K, np.ones(len(px)), THRESHOLD_PX)


def _errors(solution: PnpSolution | None, T: FloatArray) -> tuple[float, float]:
    """Translation in mm, rotation in degrees; a pose that is not found is infinitely wrong."""
    if solution is None:
        return np.inf, np.inf
    found = solution.T_camera_object
    turn = se3.rotation_angle_rad(found[:3, :3], T[:3, :3])
    return float(np.linalg.norm(found[:3, 3] - T[:3, 3])) * 1e3, float(np.degrees(turn))


def _bytes(solution: PnpSolution | None) -> bytes:
    assert solution is not None
    return solution.T_camera_object.tobytes() + solution.covariance.tobytes()


@pytest.mark.parametrize(
    "distortion",
    [
        NO_DISTORTION,
        Distortion("plumb_bob", (0.1, -0.2, 0.001, -0.002, 0.03)),
        Distortion("equidistant", (-0.02, 0.01, -0.003, 0.001)),
    ],
    ids=lambda d: d.model,
)
@pytest.mark.parametrize("name", ["wedge", "brick"])
def test_exact_keypoints_and_depth_give_the_exact_pose(name: str, distortion: Distortion) -> None:
    T = pose(0.05, -0.04, 0.6, (2.2, 0.5, -0.3))
    solution = _solve(name, _pixels(name, T), render_depth([(name, T)], distortion), distortion)
    assert solution is not None and solution.with_depth
    mm, deg = _errors(solution, T)
    assert mm < 0.05 and deg < 0.05
    assert solution.inliers.all() and solution.reprojection_px < 0.1


def test_depth_finds_the_distance_that_keypoints_cannot_tell() -> None:
    # 8 cm at 1.3 m are 40 pixels: two pixels of noise are centimetres of distance
    plain_mm, depth_mm = [], []
    for seed in range(8):
        T = pose(0.02, 0.03, 1.3, (2.0 + 0.1 * seed, 0.4, 0.3))
        px = _pixels("wedge", T, noise_px=2.0, seed=seed)
        plain_mm.append(_errors(_plain("wedge", px), T)[0])
        depth_mm.append(
            _errors(_solve("wedge", px, render_depth([("wedge", T)], NO_DISTORTION)), T)[0]
        )
    assert max(plain_mm) > 40
    assert max(depth_mm) < 12


def test_a_pose_wrong_by_a_metre_is_recovered() -> None:
    # seen edge-on, with its keypoints squeezed towards each other as a network that saw a far
    # object gives them: PnP believes them
    T = pose(0.0, 0.02, 0.6, (1.6, 0.1, 0.1))
    px = _pixels("brick", T, noise_px=1.0)
    far = pose(0.0, 0.02 * 1.6 / 0.6, 1.6, (1.6, 0.1, 0.1))
    wrong = np.random.default_rng(1).permutation(len(px))[:18]
    px[wrong] = _pixels("brick", far)[wrong]
    plain = _plain("brick", px)
    assert plain is not None and plain.T_camera_object[2, 3] > 1.4
    mm, deg = _errors(_solve("brick", px, render_depth([("brick", T)], NO_DISTORTION)), T)
    assert mm < 5 and deg < 3


def test_depth_tells_the_two_tilts_of_a_plate_apart() -> None:
    # keypoints of one far face: two tilts project almost alike
    model = LIBRARY["brick"]
    face = np.abs(model.keypoints_m[:, 2] - 0.02) < 0.002
    plain_wrong, depth_wrong = 0, 0
    for seed in range(12):
        T = pose(0.0, 0.0, 1.2, (np.pi - 0.45, 0.1, 0.0))
        px = _pixels("brick", T, noise_px=1.5, seed=seed)
        px[~face] = np.nan
        plain_wrong += _errors(_plain("brick", px), T)[1] > 15
        depth = render_depth([("brick", T)], NO_DISTORTION)
        depth_wrong += _errors(_solve("brick", px, depth), T)[1] > 15
    assert plain_wrong >= 3
    assert depth_wrong == 0


@pytest.mark.parametrize("before_m", [0.02, 0.05, 0.2])
def test_keypoints_behind_an_occluder_do_not_pull(before_m: float) -> None:
    T = pose(0.0, 0.0, 0.6)
    depth = render_depth([("wedge", T)], NO_DISTORTION)
    px = _pixels("wedge", T, noise_px=0.5)
    depth[:, : int(np.median(px[:, 0]))] = 0.57 - before_m
    mm, deg = _errors(_solve("wedge", px, depth), T)
    assert mm < 2 and deg < 1.5


@pytest.mark.parametrize("seed", range(4))
def test_a_quarter_of_outliers_and_noisy_depth_with_holes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    T = pose(0.05, 0.02, 0.7, (2.2, 0.4 * seed, 0.3))
    px = _pixels("wedge", T, noise_px=1.0, seed=seed)
    lost = rng.permutation(len(px))[: len(px) // 4]
    px[lost] += rng.choice([-1, 1], (len(lost), 2)) * rng.uniform(15, 80, (len(lost), 2))
    depth = render_depth([("wedge", T)], NO_DISTORTION)
    depth += rng.normal(0, 0.002, SIZE_HW).astype(np.float32)
    depth[rng.random(SIZE_HW) < 0.3] = 0.0
    depth[rng.random(SIZE_HW) < 0.1] = np.nan
    solution = _solve("wedge", px, depth)
    mm, deg = _errors(solution, T)
    assert mm < 3 and deg < 2.5
    assert solution is not None and not solution.inliers[lost].any()


def _nearby(T: FloatArray) -> FloatArray:
    """Where a prediction from the last frames puts it: 4 mm and 3 degrees off."""
    R = se3.exp_so3(np.array([0.03, -0.04, 0.02])) @ T[:3, :3]
    return se3.make_transform(R, T[:3, 3] + [0.003, -0.002, 0.002])


def test_an_expected_pose_that_is_borne_out_needs_no_sampling(monkeypatch) -> None:
    T = pose(0.05, -0.04, 0.6, (2.2, 0.5, -0.3))
    px, depth_m = _pixels("wedge", T, 0.5), render_depth([("wedge", T)], NO_DISTORTION)
    sampled = _solve("wedge", px, depth_m)
    monkeypatch.setattr(pnp, "sample_poses", lambda *_: pytest.fail("nothing is to be sampled"))
    mm, deg = _errors(_solve("wedge", px, depth_m, expected=_nearby(T)), T)
    assert (mm, deg) <= tuple(e + 0.1 for e in _errors(sampled, T))


@pytest.mark.parametrize("turn_deg", [90, 180])
def test_an_expected_pose_that_is_wrong_does_no_harm(turn_deg: float) -> None:
    T = pose(0.05, -0.04, 0.6, (2.2, 0.5, -0.3))
    px, depth_m = _pixels("wedge", T, 0.5), render_depth([("wedge", T)], NO_DISTORTION)
    wrong = T @ se3.make_transform(
        se3.exp_so3(np.radians(turn_deg) * np.array([0.0, 0.6, 0.8])), np.array([0.01, 0, 0])
    )
    mm, deg = _errors(_solve("wedge", px, depth_m, expected=wrong), T)
    assert mm < 1.0 and deg < 1.0


def test_an_expected_pose_saves_what_few_keypoints_cannot_tell() -> None:
    """Two in three keypoints are anywhere: sampling finds no pose for sure, the last one holds."""
    T = pose(0.05, -0.04, 0.6, (2.2, 0.5, -0.3))
    depth_m = render_depth([("wedge", T)], NO_DISTORTION)
    found = []
    for seed in range(12):
        px = _pixels("wedge", T, 0.5)
        rng = np.random.default_rng(seed)
        lost = rng.permutation(len(px))[: 2 * len(px) // 3]
        px[lost] += rng.uniform(-60, 60, (len(lost), 2))
        found.append(_errors(_solve("wedge", px, depth_m, expected=_nearby(T)), T))
    assert sum(mm < 3.0 and deg < 3.0 for mm, deg in found) >= 11


@pytest.mark.parametrize("invalid", [0.0, np.nan, np.inf, -1.0])
def test_without_depth_it_is_the_plain_solution(invalid: float) -> None:
    T = pose(0.0, 0.0, 0.6)
    px = _pixels("wedge", T, noise_px=1.0)
    solution = _solve("wedge", px, np.full(SIZE_HW, invalid, np.float32))
    assert solution is not None and not solution.with_depth
    assert _bytes(solution) == _bytes(_plain("wedge", px))


def test_depth_of_nothing_but_the_wall_does_not_drag_the_pose_there() -> None:
    T = pose(0.0, 0.0, 0.6)
    px = _pixels("wedge", T, noise_px=0.5)
    solution = _solve("wedge", px, np.full(SIZE_HW, BACKGROUND_M, np.float32))
    assert _errors(solution, T)[0] < 15  # the gate rejects it: depth disagrees


def test_too_few_keypoints_give_no_pose() -> None:
    T = pose(0.0, 0.0, 0.6)
    depth, px = render_depth([("wedge", T)], NO_DISTORTION), _pixels("wedge", T)
    px[3:] = np.nan
    assert _solve("wedge", px, depth) is None
    scattered = np.random.default_rng(0).uniform(0, 480, px.shape)
    few = _solve("wedge", scattered, depth, threshold_px=0.5)
    assert few is None or few.inliers.sum() >= 4


def test_same_bytes_on_every_call_and_in_threads() -> None:
    scenes = []
    for seed in range(3):
        T = pose(0.0, 0.0, 0.7, (2.2, 0.3 * seed, 0.0))
        px = _pixels("wedge", T, noise_px=1.5, seed=seed)
        px[::4] += 50.0
        scenes.append((px, render_depth([("wedge", T)], NO_DISTORTION)))
    expected = [_bytes(_solve("wedge", *scene)) for scene in scenes]
    np.random.seed(3)
    cv2.setRNGSeed(99)
    results: list[list[bytes]] = [[] for _ in scenes]

    def work(i: int) -> None:
        for _ in range(4):
            results[i].append(_bytes(_solve("wedge", *scenes[i])))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(scenes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[e] * 4 for e in expected]


@pytest.mark.parametrize(("scale", "low", "high"), [(1.0, 3.5, 8.0), (0.4, 0.5, 5.0)])
def test_covariance_is_that_of_many_trials(scale: float, low: float, high: float) -> None:
    """Mean normalised error squared: 6 for an exact covariance, less where less noisy than said."""
    T = pose(0.03, -0.02, 0.6)
    clean, sigma_m = render_depth([("wedge", T)], NO_DISTORTION), float(noise_m(T[None])[0])
    nees = []
    for seed in range(40):
        noise = np.random.default_rng(seed).normal(0, scale * sigma_m, SIZE_HW)
        px = _pixels("wedge", T, scale * NOISE * 10.0, seed)
        solution = _solve("wedge", px, clean + noise.astype(np.float32), threshold_px=10.0)
        assert solution is not None
        R = solution.T_camera_object[:3, :3] @ T[:3, :3].T
        xi = np.r_[solution.T_camera_object[:3, 3] - T[:3, 3], se3.log_so3(R)]
        nees.append(xi @ np.linalg.solve(solution.covariance, xi))
    assert low < np.mean(nees) < high


def test_arrays_that_do_not_fit_together_are_named() -> None:
    T = pose(0.0, 0.0, 0.6)
    model, px = LIBRARY["wedge"], _pixels("wedge", T)
    with pytest.raises(DataError, match=r"surface Nx6, got \(512, 3\)"):
        PoseQuery(model.keypoints_m, px, np.ones(len(px)), 6.0, model.surface[:, :3], 0.1)
    with pytest.raises(DataError, match="Kx3"):
        PoseQuery(model.keypoints_m, px, np.ones(3), 6.0, model.surface, 0.1)


def test_objects_solved_together_are_those_solved_alone() -> None:
    """One expected and borne out, one expected elsewhere, one sought, one without keypoints."""
    places = [("wedge", -0.12), ("brick", 0.0), ("wedge", 0.12)]
    truths = [(name, pose(x, -0.02, 0.7, (2.2, 0.5, 3 * x))) for name, x in places]
    depth_m = render_depth(truths, NO_DISTORTION)
    expected = [_nearby(truths[0][1]), pose(0.05, 0.0, 0.9), None]
    queries = []
    for (name, T), guess in zip(truths, expected, strict=True):
        model, px = LIBRARY[name], _pixels(name, T, 0.5)
        queries.append(
            PoseQuery(
                model.keypoints_m, px, np.ones(len(px)), THRESHOLD_PX, model.surface,
                model.diameter_m, guess,
            )
        )  # fmt: skip
    blank = replace(queries[0], points_px=np.full_like(queries[0].points_px, np.nan))
    image = DepthImage(depth_m, K)
    together = solve_pnp_depth([*queries[:2], blank, queries[2]], image)
    assert together.pop(2) is None
    for query, solution, (_, T) in zip(queries, together, truths, strict=True):
        (alone,) = solve_pnp_depth([query], image)
        assert solution is not None and alone is not None
        assert max(_errors(solution, T)) < 1.5
        np.testing.assert_allclose(solution.T_camera_object, alone.T_camera_object, atol=1e-9)
        np.testing.assert_allclose(solution.covariance, alone.covariance, rtol=1e-6)
        np.testing.assert_array_equal(solution.inliers, alone.inliers)
