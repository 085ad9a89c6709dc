"""Our depth refiner beside small_gicp, on true poses moved at random: errors and time.

    python tests/bench/compare_icp.py --dataset DATA --split test --objects config/objects/X.yaml

Needs ``pip install small_gicp`` (without it only our own refiner is measured). The same starts,
the same depth, one thread each; a result is accepted only where the depth error of the surface
falls, as in the refiner. small_gicp gets the depth inside the object's projected mask as source,
and 4000 samples of the mesh with a search tree, made once and not timed, as target.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from heatnet_ros.config import RefinerConfig
from heatnet_ros.datasets.bop import object_id
from heatnet_ros.evaluation_models import EvaluationModels
from heatnet_ros.geometry import se3
from heatnet_ros.geometry.camera import backproject, crop_around_box, project
from heatnet_ros.geometry.depth import view_surfaces
from heatnet_ros.mesh import sample_surface
from heatnet_ros.metrics import add_or_adds_error_m, pose_errors
from heatnet_ros.objects import ObjectLibrary, ObjectModel, load_objects
from heatnet_ros.predict_inputs import list_split_inputs
from heatnet_ros.refiners.depth_icp import DepthIcp
from heatnet_ros.types import Frame, Keypoints, PoseEstimate

# standard deviations of a start: part of the distance along the ray, metres across, degrees
STARTS = {"near": (0.01, 0.003, 3.0), "far": (0.04, 0.010, 8.0)}
INPUT_PX, MARGIN, KEYPOINT_NOISE_PX = 128, 1.3, 1.5
MIN_VISIBLE = 0.3
# small_gicp: search radius of its two rounds, and around the pose's depth, in diameters
ROUNDS, DEPTH_WINDOW = (0.25, 0.06), 0.75
MAX_SOURCE, MIN_SOURCE = 1500, 24
MESH_SAMPLES, VERTICES = 4000, 1000


@dataclass
class Case:
    """An object in a frame, and the pose it really has."""

    frame: Frame
    model: ObjectModel
    truth: np.ndarray
    bbox: tuple[float, float, float, float]
    vertices: np.ndarray


@dataclass
class Scores:
    """What one method left, over all cases."""

    add_d: list[float] = field(default_factory=list)
    mm: list[float] = field(default_factory=list)
    deg: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    accepted: list[bool] = field(default_factory=list)

    def add(self, case: Case, T: np.ndarray, seconds: float, accepted: bool) -> None:
        symmetries = case.model.symmetries
        error = add_or_adds_error_m(T, case.truth, case.vertices, symmetries)
        self.add_d.append(error / case.model.diameter_m)
        mm, deg = pose_errors(T, case.truth, symmetries)
        self.mm.append(mm)
        self.deg.append(deg)
        self.seconds.append(seconds)
        self.accepted.append(accepted)

    def summary(self) -> dict[str, float]:
        add = np.array(self.add_d)
        return {
            "cases": len(add),
            "add_01d": float(np.mean(add < 0.1)),
            "add_005d": float(np.mean(add < 0.05)),
            "add_002d": float(np.mean(add < 0.02)),
            "median_mm": float(np.median(self.mm)),
            "p90_mm": float(np.percentile(self.mm, 90)),
            "median_deg": float(np.median(self.deg)),
            "p90_deg": float(np.percentile(self.deg, 90)),
            "accepted": float(np.mean(self.accepted)),
            "ms": float(np.median(self.seconds)) * 1e3,
        }


class SmallGicp:
    """small_gicp on the depth inside the projected mask; ``kind``: PLANE_ICP or GICP."""

    def __init__(self, library: ObjectLibrary, kind: str, package: Any) -> None:
        self._package, self._kind, self._library = package, kind, library
        self._targets: dict[str, tuple[Any, Any]] = {}

    def prepare(self, name: str) -> tuple[Any, Any]:
        """The mesh's samples with normals and covariances, and their search tree."""
        if name not in self._targets:
            mesh = self._library[name].load_mesh()
            assert mesh is not None, f"{name}: the object library has no mesh"
            cloud = self._package.PointCloud(sample_surface(mesh, MESH_SAMPLES)[0])
            tree = self._package.KdTree(cloud)
            self._package.estimate_normals_covariances(cloud, tree, 10, 1)
            self._targets[name] = cloud, tree
        return self._targets[name]

    def refine(self, frame: Frame, start: PoseEstimate) -> np.ndarray:
        model = self._library[start.object_id]
        T, (target, tree) = start.T_camera_object, self.prepare(start.object_id)
        points = _masked_points(frame, T, model)
        if len(points) < MIN_SOURCE:
            return T
        source = self._package.PointCloud(points)
        if self._kind == "GICP":
            self._package.estimate_covariances(source, self._package.KdTree(source), 10, 1)
        for radius in ROUNDS:
            found = self._package.align(
                target,
                source,
                tree,
                se3.invert(T),
                registration_type=self._kind,
                max_correspondence_distance=radius * model.diameter_m,
                num_threads=1,
                max_iterations=15,
                rotation_epsilon=1e-4,
                translation_epsilon=1e-5,
            )
            T = se3.invert(np.asarray(found.T_target_source))
        T = se3.make_transform(se3.orthonormalize(T[:3, :3]), T[:3, 3])
        return (
            T if _agrees_better(frame, model, T, start.T_camera_object) else start.T_camera_object
        )


def _masked_points(frame: Frame, T: np.ndarray, model: ObjectModel) -> np.ndarray:
    """Measured points (N, 3) inside the object's projected mask and near its depth."""
    h, w = frame.size_hw
    seen = project(se3.transform(T, model.surface[:, :3]), frame.K, frame.distortion)
    pixels = np.rint(seen[np.isfinite(seen).all(axis=1)]).astype(int)
    pixels = pixels[((pixels >= 0) & (pixels < (w, h))).all(axis=1)]
    if not len(pixels):
        return np.zeros((0, 3))
    low, high = pixels.min(axis=0), pixels.max(axis=0) + 1
    mask = np.zeros((high - low)[::-1], np.uint8)
    mask[tuple((pixels - low).T[::-1])] = 1
    # closes the gaps between samples, whose mean distance this is
    gap = 2 * int(np.ceil(np.sqrt(mask.size / len(pixels)))) + 1
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((gap, gap), np.uint8))
    depth = frame.depth_m[low[1] : high[1], low[0] : high[0]]
    near = np.abs(depth - T[2, 3]) < DEPTH_WINDOW * model.diameter_m
    v, u = np.nonzero((mask > 0) & (depth > 0) & near)
    step = max(1, len(v) // MAX_SOURCE)
    v, u = v[::step], u[::step]
    uv = np.stack([u + low[0], v + low[1]], axis=1).astype(float)
    return backproject(uv, depth[v, u].astype(float), frame.K, frame.distortion)


def _agrees_better(frame: Frame, model: ObjectModel, T: np.ndarray, than: np.ndarray) -> bool:
    errors = []
    for each in (than, T):
        surface = model.surface.T[None]
        view = view_surfaces(
            each[None], surface[:, :3], surface[:, 3:], frame.depth_m, frame.K, frame.distortion
        )
        r = np.abs(view.gap_m[0, 2, view.valid[0]])
        if len(r) < MIN_SOURCE:
            return False
        errors.append(float(np.minimum(r, 0.25 * model.diameter_m).mean()))
    return errors[1] < errors[0]


def _load_cases(dataset: Path, split: str, library: ObjectLibrary, limit: int | None) -> list[Case]:
    inputs = list_split_inputs(dataset, split)
    ids = {n: object_id(n, inputs.dataset, inputs.object_names) for n in library.objects}
    models, vertices, cases = EvaluationModels(library, inputs.folder, ids), {}, []
    for image in [image for image in inputs.images if image.has_depth][:limit]:
        frame = image.load_frame()
        for true in image.truths:
            name, visible = true.object_id, true.visible_fraction
            if name not in library.objects or true.bbox_xyxy_px is None:
                continue
            if visible is not None and visible < MIN_VISIBLE:
                continue
            if name not in vertices:
                every = models.load(name).points_m
                vertices[name] = every[:: max(1, len(every) // VERTICES)]
            cases.append(
                Case(frame, library[name], true.T_camera_object, true.bbox_xyxy_px, vertices[name])
            )
    return cases


def _start(case: Case, sigmas: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    along, across_m, turn_deg = sigmas
    t = case.truth[:3, 3] * (1 + rng.normal(0, along)) + [*rng.normal(0, across_m, 2), 0.0]
    turn = rng.normal(0, np.radians(turn_deg) / np.sqrt(3), 3)
    return se3.make_transform(se3.exp_so3(turn) @ case.truth[:3, :3], t)


def _keypoints(case: Case, rng: np.random.Generator) -> tuple[Keypoints, float]:
    """Where a network would see the keypoints, with noise, and the scale of its crop."""
    crop = crop_around_box(case.bbox, INPUT_PX, MARGIN)
    points = se3.transform(case.truth, case.model.keypoints_m)
    px = project(points, case.frame.K, case.frame.distortion)
    px = px + rng.normal(0, KEYPOINT_NOISE_PX / crop.scale, px.shape)
    return Keypoints(px, np.ones(len(px))), crop.scale


Method = Callable[[Frame, PoseEstimate], np.ndarray]


def _methods(library: ObjectLibrary) -> dict[str, Method]:
    icp = DepthIcp(RefinerConfig(), library)

    def own(frame: Frame, start: PoseEstimate) -> np.ndarray:
        return icp.refine(frame, [replace(start, keypoints=None)])[0].T_camera_object

    def own_with_keypoints(frame: Frame, start: PoseEstimate) -> np.ndarray:
        return icp.refine(frame, [start])[0].T_camera_object

    methods: dict[str, Method] = {
        "start": lambda _, start: start.T_camera_object,
        "ours, depth only": own,
        "ours, depth + keypoints": own_with_keypoints,
    }
    try:
        package = importlib.import_module("small_gicp")
    except ImportError:
        print("small_gicp is not installed (pip install small_gicp): only ours", file=sys.stderr)
        return methods
    for kind in ("PLANE_ICP", "GICP"):
        other = SmallGicp(library, kind, package)
        for name in library.objects:
            other.prepare(name)
        methods[f"small_gicp {kind}"] = other.refine
    return methods


def main() -> int:
    """Print a table for each kind of start; ``--json`` keeps the numbers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--objects", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="only the first N images with depth")
    parser.add_argument("--repeats", type=int, default=1, help="starts of each object")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    library = load_objects(args.objects)
    cases, methods = (
        _load_cases(args.dataset, args.split, library, args.limit),
        _methods(library),
    )
    report = {}
    for kind, sigmas in STARTS.items():
        scores: dict[str, Scores] = defaultdict(Scores)
        for i, case in enumerate(cases * args.repeats):
            rng = np.random.default_rng([i, len(kind)])
            T = _start(case, sigmas, rng)
            keypoints, scale = _keypoints(case, rng)
            start = PoseEstimate(
                case.model.name, T, 1.0, 1.0, 1.0, "moved", crop_scale=scale, keypoints=keypoints
            )
            for name, refine in methods.items():
                before = time.thread_time()
                refined = refine(case.frame, start)
                seconds = time.thread_time() - before
                scores[name].add(case, refined, seconds, refined is not T)
        report[kind] = {name: s.summary() for name, s in scores.items()}
        print(
            f"\n{kind}: {sigmas[0]:.0%} of the distance, {sigmas[1] * 1e3:g} mm, {sigmas[2]:g} deg"
        )
        _print_table(report[kind])
    if args.json is not None:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _print_table(rows: dict[str, dict[str, float]]) -> None:
    columns = list(next(iter(rows.values())))
    print(f"{'':26}" + "".join(f"{c:>11}" for c in columns))
    for name, row in rows.items():
        values = (f"{row[c]:11d}" if c == "cases" else f"{row[c]:11.3f}" for c in columns)
        print(f"{name:26}" + "".join(values))


if __name__ == "__main__":
    sys.exit(main())
