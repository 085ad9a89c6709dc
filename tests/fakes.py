"""A world without weights: convex objects, their exact depth, engines that answer encode(truth)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from heatnet_ros.config import PipelineConfig
from heatnet_ros.engines import TensorSpec
from heatnet_ros.estimators.heatnet import HeatNetEstimator, encode_heatmaps
from heatnet_ros.estimators.yolo import YoloDetector, encode_detections
from heatnet_ros.geometry import se3
from heatnet_ros.geometry.camera import (
    Crop,
    backproject,
    crop_around_box,
    fit_letterbox,
    project,
)
from heatnet_ros.geometry.symmetry import NO_SYMMETRY, Symmetries, canonicalize, rotation_about
from heatnet_ros.keypoint_sampling import farthest_points
from heatnet_ros.manifest import Manifest
from heatnet_ros.mesh import Mesh, diameter, sample_surface, vertex_normals
from heatnet_ros.objects import ObjectLibrary, ObjectModel
from heatnet_ros.pipeline import Pipeline
from heatnet_ros.types import Detection, Distortion, Frame

K = np.array([[615.0, 0.0, 320.0], [0.0, 612.0, 241.0], [0.0, 0.0, 1.0]])
SIZE_HW = (480, 640)
BACKGROUND_M = 1.5
KEYPOINTS = 32
INPUT_PX, STRIDE, SIGMA, MARGIN = 128, 2, 2.0, 1.3
DETECTOR_HW = (320, 416)


def prism(corners_xy_m: np.ndarray, height_m: float) -> Mesh:
    """A convex polygon (n, 2), counter-clockwise, raised along z, centred on z = 0."""
    n = len(corners_xy_m)
    low, high = (np.column_stack([corners_xy_m, np.full(n, z * height_m)]) for z in (-0.5, 0.5))
    i, j = np.arange(n), (np.arange(n) + 1) % n
    fan = np.column_stack([np.zeros(n - 2, int), np.arange(1, n - 1), np.arange(2, n)])
    sides = [np.column_stack([i, j, j + n]), np.column_stack([i, j + n, i + n])]
    faces = np.vstack([*sides, fan + n, fan[:, ::-1]]).astype(np.int32)
    vertices = np.vstack([low, high])
    colors = np.full(vertices.shape, 180, np.uint8)
    return Mesh(vertices, faces, vertex_normals(vertices, faces), colors)


def build_model(name: str, mesh: Mesh, symmetries: Symmetries = NO_SYMMETRY) -> ObjectModel:
    surface = np.hstack(sample_surface(mesh, 512))
    keypoints = farthest_points(sample_surface(mesh, 4000, seed=1)[0], KEYPOINTS)
    size_m = diameter(mesh.vertices_m)
    return ObjectModel(name, size_m, mesh.bounds_m, keypoints, surface, symmetries, None, "m")


def _rectangle(x: float, y: float) -> np.ndarray:
    return np.array([[-x, -y], [x, -y], [x, y], [-x, y]]) / 2


def _wedge() -> np.ndarray:
    return np.array([[-0.05, -0.03], [0.06, -0.03], [0.02, 0.04], [-0.05, 0.02]])


_ANGLES = np.arange(24) * 2 * np.pi / 24
_Z = np.array([0.0, 0.0, 1.0])
MESHES = {
    "wedge": prism(_wedge(), 0.05),
    "brick": prism(_rectangle(0.12, 0.06), 0.04),
    "disc": prism(0.05 * np.column_stack([np.cos(_ANGLES), np.sin(_ANGLES)]), 0.05),
}
_HALF_TURN = rotation_about(_Z, np.zeros(3), np.pi)
LIBRARY = ObjectLibrary(
    "fake",
    {
        "wedge": build_model("wedge", MESHES["wedge"]),
        "brick": build_model(
            "brick", MESHES["brick"], Symmetries(np.stack([np.eye(4), _HALF_TURN]))
        ),
        "disc": build_model("disc", MESHES["disc"], Symmetries(np.eye(4)[None], _Z, np.zeros(3))),
    },
    Path("fake.yaml"),
)


def pose(x: float, y: float, z: float, rotvec: Sequence[float] = (2.2, 0.4, 0.3)) -> np.ndarray:
    return se3.make_transform(se3.exp_so3(np.array(rotvec)), np.array([x, y, z]))


def largest_turn_deg(poses: Sequence[np.ndarray]) -> float:
    """From one pose to the next."""
    turns = [se3.rotation_angle_rad(a[:3, :3], b[:3, :3]) for a, b in pairwise(poses)]
    return float(np.degrees(max(turns)))


def render_depth(truth: Sequence[tuple[str, np.ndarray]], distortion: Distortion) -> np.ndarray:
    """HxW float32 metres: each ray cut with the planes of each convex object."""
    depth = np.full(SIZE_HW, BACKGROUND_M, np.float32)
    for name, T in truth:
        corners = project(se3.transform(T, MESHES[name].vertices_m), K, distortion)
        x0, y0 = np.clip(np.floor(corners.min(axis=0)).astype(int) - 2, 0, None)
        x1, y1 = np.ceil(corners.max(axis=0)).astype(int) + 3
        region = depth[y0:y1, x0:x1]
        v, u = np.mgrid[: region.shape[0], : region.shape[1]]
        pixels = np.column_stack([u.ravel() + x0, v.ravel() + y0]).astype(float)
        rays = backproject(pixels, np.ones(len(pixels)), K, distortion)
        seen = _cut(rays, MESHES[name], T).reshape(region.shape)
        np.minimum(region, seen, out=region, casting="same_kind")
    return depth


def _cut(rays: np.ndarray, mesh: Mesh, T: np.ndarray) -> np.ndarray:
    """z at which rays (N, 3) with z = 1 enter a convex mesh, inf where they miss it."""
    a, b, c = (se3.transform(T, mesh.vertices_m[mesh.faces[:, i]]) for i in range(3))
    normals = np.cross(b - a, c - a)
    slope = rays @ normals.T
    with np.errstate(divide="ignore"):
        reach = np.sum(normals * a, axis=1) / slope
    enter = np.where(slope < 0, reach, -np.inf).max(axis=1)
    leave = np.where(slope > 0, reach, np.inf).min(axis=1)
    return np.where((enter < leave) & (enter > 0), enter, np.inf)


def paint_coordinates() -> np.ndarray:
    """An image that says where each pixel is: a network that sees a crop of it knows which."""
    height, width = SIZE_HW
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.rint(np.stack([x, y, np.full(SIZE_HW, 255.0)], axis=-1)).astype(np.uint8)


def read_crop(rgb: np.ndarray) -> Crop | None:
    """Which crop of ``paint_coordinates`` this is, to about 0.1 px; None of another image."""
    inside = rgb[..., 2] > 245  # outside the image it is 0; a JPEG is not exact
    if inside.mean() < 0.05:
        return None
    lines = []
    for axis, size in ((0, SIZE_HW[1]), (1, SIZE_HW[0])):
        at = np.nonzero(inside)[1 - axis]
        values = rgb[..., axis][inside] * ((size - 1) / 255)
        lines.append(np.polyfit(at, values, 1))
    step = float(np.mean([line[0] for line in lines]))
    left, top = (float(line[1]) + 0.5 - 0.5 * step for line in lines)
    return Crop(left, top, step * rgb.shape[0], rgb.shape[0])


def _edges(crop: Crop) -> tuple[float, float, float]:
    return crop.left_px, crop.top_px, crop.side_px


@dataclass
class FakeEngine:
    """Answers with a function; keeps what it was asked."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    answer: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
    description: str = "fake CPU fp32"
    calls: list[dict[str, np.ndarray]] = field(default_factory=list)

    def run(self, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for spec in self.inputs:
            array = tensors[spec.name]
            assert array.dtype == spec.dtype
            assert all(s in (None, n) for s, n in zip(spec.shape, array.shape, strict=True))
        self.calls.append(dict(tensors))
        return self.answer(dict(tensors))


def spec(name: str, dtype: str, *shape: int | None) -> TensorSpec:
    return TensorSpec(name, shape, np.dtype(dtype))


def detector_manifest(objects: Sequence[str] = tuple(LIBRARY.objects)) -> Manifest:
    return Manifest(
        "fake_yolo", Path("models/fake_yolo"), "yolo", "y.onnx", "", tuple(objects), "",
        DETECTOR_HW, 0, 0, 1.0, {"image": "images"}, {"detections": "output0"}, {}, {},
    )  # fmt: skip


def heatnet_manifest(rgbd: bool = True) -> Manifest:
    names = list(LIBRARY.objects)
    inputs = {"rgb": "rgb", "object_index": "object_index"} | ({"depth": "depth"} if rgbd else {})
    return Manifest(
        "fake_heatnet", Path("models/fake_heatnet"), "heatnet", "h.onnx", "", tuple(names),
        LIBRARY.keypoints_hash(names), (INPUT_PX, INPUT_PX), STRIDE, KEYPOINTS, MARGIN,
        inputs, {"heatmaps": "heatmaps"}, {}, {},
    )  # fmt: skip


class World:
    """True poses, the frame they are seen in, and a pipeline whose networks know them.

    noise_px: standard deviation of the keypoints in crop pixels. shuffle: share of keypoints that
    are put anywhere in the crop. peak: value of the heatmaps' maxima. hidden: numbers of what is
    in ``truth`` and no network sees. answers: the heatmaps, whatever the crops.
    """

    def __init__(
        self, *truth: tuple[str, np.ndarray], distortion: Distortion | None = None
    ) -> None:
        self.truth = list(truth)
        self.distortion = distortion or Distortion()
        self.noise_px, self.shuffle, self.peak, self.depth_shift_m = 0.0, 0.0, 1.0, 0.0
        self.hidden: set[int] = set()
        self.answers: np.ndarray | None = None
        self.rng = np.random.default_rng(0)

    def frame(self, stamp_ns: int = 0, depth: bool = True) -> Frame:
        depth_m = render_depth(self.truth, self.distortion) + np.float32(self.depth_shift_m)
        return Frame(
            paint_coordinates(), K, depth_m if depth else None, self.distortion, stamp_ns, "camera"
        )

    def detections(self) -> list[Detection]:
        """True boxes, in the order of ``truth``; scores fall, so that the order stays."""
        found = []
        for i, (name, T) in enumerate(self.truth):
            pixels = project(se3.transform(T, MESHES[name].vertices_m), K, self.distortion)
            low, high = pixels.min(axis=0), pixels.max(axis=0)
            found.append(Detection(name, (*low, *high), 0.95 - 0.01 * i))
        return found

    def heatmaps(self) -> np.ndarray:
        """What a perfect network answers for crops around the detections."""
        crops = [crop_around_box(d.bbox_xyxy_px, INPUT_PX, MARGIN) for d in self.detections()]
        return np.stack([self._see(t, c) for t, c in zip(self.truth, crops, strict=True)])

    def _see(self, truth: tuple[str, np.ndarray], crop: Crop) -> np.ndarray:
        """Heatmaps of the keypoints of the canonical pose in a crop."""
        side, (name, T) = INPUT_PX // STRIDE, truth
        model = LIBRARY[name]
        seen = canonicalize(T, model.symmetries)
        pixels = project(se3.transform(seen, model.keypoints_m), K, self.distortion)
        points = crop.to_crop(pixels) + self.rng.normal(0, 1, (KEYPOINTS, 2)) * self.noise_px
        lost = self.rng.permutation(KEYPOINTS)[: round(self.shuffle * KEYPOINTS)]
        points[lost] = self.rng.uniform(0, INPUT_PX - 1, (len(lost), 2))
        maps = self.peak * encode_heatmaps(points, (side, side), STRIDE, SIGMA)
        return np.asarray(maps, np.float32)

    def answer_crop(self, rgb: np.ndarray, name: str) -> np.ndarray:
        """Heatmaps for a crop (S, S, 3) of ``frame``: of the nearest object of that name.

        Flat where that object's middle is not in the crop.
        """
        nothing = np.zeros((KEYPOINTS, INPUT_PX // STRIDE, INPUT_PX // STRIDE), np.float32)
        crop = read_crop(rgb)
        if crop is None:
            return nothing
        known = [crop_around_box(d.bbox_xyxy_px, INPUT_PX, MARGIN) for d in self.detections()]
        same = [c for c in known if np.allclose(_edges(c), _edges(crop), atol=0.5)]
        crop = same[0] if same else crop  # exactly, where it is one of the detections
        off, i = INPUT_PX / 2, -1
        for k, (other, T) in enumerate(self.truth):
            if other == name and k not in self.hidden:
                middle = crop.to_crop(project(T[:3, 3], K, self.distortion)[0])
                distance = float(np.abs(middle - INPUT_PX / 2).max())
                off, i = (distance, k) if distance < off else (off, i)
        if i < 0:
            return nothing
        return self._see(self.truth[i], crop)

    def detector(self, config: PipelineConfig) -> YoloDetector:
        letterbox = fit_letterbox(SIZE_HW, DETECTOR_HW)
        manifest = detector_manifest()

        def answer(_: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            found = [d for i, d in enumerate(self.detections()) if i not in self.hidden]
            return {"output0": encode_detections(found, letterbox, manifest.objects, 300)[None]}

        engine = FakeEngine(
            (spec("images", "uint8", 1, *DETECTOR_HW, 3),),
            (spec("output0", "float32", 1, 300, 6),),
            answer,
        )
        return YoloDetector(engine, manifest, config.detector)

    def estimator(self, config: PipelineConfig, rgbd: bool = True) -> HeatNetEstimator:
        side = INPUT_PX // STRIDE
        inputs = [spec("rgb", "uint8", None, INPUT_PX, INPUT_PX, 3)]
        inputs += [spec("object_index", "int64", None)]
        inputs += [spec("depth", "float32", None, 2, INPUT_PX, INPUT_PX)] if rgbd else []

        names = list(LIBRARY.objects)

        def answer(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            if self.answers is not None:
                return {"heatmaps": self.answers}
            crops = zip(tensors["rgb"], tensors["object_index"], strict=True)
            return {"heatmaps": np.stack([self.answer_crop(rgb, names[i]) for rgb, i in crops])}

        engine = FakeEngine(
            tuple(inputs), (spec("heatmaps", "float32", None, KEYPOINTS, side, side),), answer
        )
        return HeatNetEstimator(engine, heatnet_manifest(rgbd), config.estimator, LIBRARY)

    def pipeline(self, config: PipelineConfig | None = None, rgbd: bool = True) -> Pipeline:
        config = config or PipelineConfig()
        return Pipeline(config, LIBRARY, self.detector(config), self.estimator(config, rgbd))
