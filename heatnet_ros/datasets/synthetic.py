"""Rendered training data: shards of crops for HeatNet and of small frames for the detector.

``python -m heatnet_ros.datasets.synthetic --scenes-file config/train/demo_scenes.yaml --out
data/demo``. Shard i depends on (seed, i) alone, so any number of workers writes the same data, and
an interrupted run continues where it stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from heatnet_ros.config import build_config, load_yaml
from heatnet_ros.errors import DataError
from heatnet_ros.geometry import se3
from heatnet_ros.geometry.camera import crop_around_box, project
from heatnet_ros.geometry.symmetry import canonicalize
from heatnet_ros.mesh import Mesh, load_ply
from heatnet_ros.objects import ObjectLibrary, load_objects
from heatnet_ros.rendering.decimate import decimate
from heatnet_ros.rendering.rasterizer import Rasterizer, Rendering
from heatnet_ros.rendering.scene import Scene, SceneSettings, build_table_scene, random_camera
from heatnet_ros.types import FloatArray

CACHE_PX = 160
CACHE_MARGIN = 1.7
FRAME_WH = (320, 240)
DEPTH_STEP_M = 1e-4


@dataclass(frozen=True)
class SyntheticConfig:
    """One data set. camera: fx, fy, cx, cy, width, height in pixels.

    clutter: mesh files of further distractors. max_faces: meshes are decimated to it (0: never).
    """

    objects_file: str = ""
    camera: tuple[float, ...] = (615.0, 615.0, 319.5, 239.5, 640, 480)
    scenes: int = 8000
    scenes_per_shard: int = 100
    cameras_per_scene: int = 2
    min_visible: float = 0.3
    seed: int = 0
    clutter: tuple[str, ...] = ()
    clutter_unit: str = "m"
    max_faces: int = 0
    settings: SceneSettings = field(default_factory=SceneSettings)


def load_synthetic_config(path: Path) -> SyntheticConfig:
    """Read a YAML file; lists become tuples. Raises ConfigError."""
    return build_config(SyntheticConfig, _tuples(load_yaml(path, "Scene file")), str(path))


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def write_shard(config: SyntheticConfig, out: Path, index: int) -> Path:
    """Render one shard and write ``shard_00012.npz``; it appears whole or not at all.

    Arrays, N crops: rgb Nx160x160x3 u8; depth Nx160x160 u16 in 0.1 mm; keypoints NxKx2 in crop
    pixels; object N; visible N (fraction); T_camera_object Nx4x4 (canonical); K Nx3x3 of the crop;
    box Nx4: the object's tight box in crop pixels. Frames F: frames Fx240x320x3 u8, boxes Mx6
    (frame, class, x0, y0, x1, y1 as fractions of the image, visible part).
    """
    path = out / f"shard_{index:05d}.npz"
    if path.exists():
        return path
    cv2.setNumThreads(1)
    library, meshes, clutter = _load(config)
    rng = np.random.default_rng((config.seed, index))
    fx, fy, cx, cy, width, height = config.camera
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    crops: list[dict[str, Any]] = []
    frames: list[NDArray[np.uint8]] = []
    boxes: list[list[float]] = []
    with Rasterizer((int(width), int(height))) as rasterizer:
        for _ in range(config.scenes_per_shard // config.cameras_per_scene):
            scene = build_table_scene(meshes, rng, config.settings, clutter)
            for _ in range(config.cameras_per_scene):
                T_world_camera = random_camera(rng, config.settings)
                image = rasterizer.render(scene, K, T_world_camera)
                covered = rasterizer.count_pixels(scene, K, T_world_camera)
                seen = _visible(image, covered, config.min_visible)
                crops += _cut_crops(scene, image, seen, K, T_world_camera, library)
                boxes += _frame_boxes(image, seen, scene, library, len(frames))
                frames.append(cv2.resize(image.rgb, FRAME_WH, interpolation=cv2.INTER_AREA))
    arrays: dict[str, Any] = {key: np.stack([crop[key] for crop in crops]) for key in crops[0]}
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        table = np.array(boxes, np.float32)
        arrays |= {"frames": np.stack(frames), "boxes": table}
        np.savez(file, **arrays)
    os.replace(part, path)
    return path


@lru_cache(maxsize=1)
def _load(config: SyntheticConfig) -> tuple[ObjectLibrary, dict[str, Mesh], tuple[Mesh, ...]]:
    library = load_objects(Path(config.objects_file))
    meshes = {n: decimate(_required_mesh(library, n), config.max_faces) for n in library.objects}
    clutter = (load_ply(Path(p), config.clutter_unit) for p in config.clutter)
    return library, meshes, tuple(decimate(mesh, config.max_faces) for mesh in clutter)


def _required_mesh(library: ObjectLibrary, name: str) -> Mesh:
    mesh = library[name].load_mesh()
    if mesh is None:
        raise DataError(
            f"Rendering needs the mesh of '{name}': {library[name].mesh_path} is not there. "
            f"Correct 'mesh' in {library.path}."
        )
    return mesh


def _visible(
    image: Rendering, covered: NDArray[np.int64], least: float
) -> list[tuple[int, float, tuple[float, float, float, float]]]:
    """(object index, visible fraction, box of the visible part in pixels) of what is seen."""
    seen = []
    for i, total in enumerate(covered):
        mask = image.instance_ids == i + 1
        count = int(np.count_nonzero(mask))
        if count < 200 or count < least * total:
            continue
        ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = (float(xs[0]), float(ys[0]), float(xs[-1]), float(ys[-1]))
        if box[2] - box[0] > 8 and box[3] - box[1] > 8:
            seen.append((i, count / max(int(total), 1), box))
    return seen


def _cut_crops(
    scene: Scene,
    image: Rendering,
    seen: list[tuple[int, float, tuple[float, float, float, float]]],
    K: FloatArray,
    T_world_camera: FloatArray,
    library: ObjectLibrary,
) -> list[dict[str, Any]]:
    names = list(library.objects)
    crops = []
    for i, fraction, box in seen:
        placed = scene.objects[i]
        model = library[placed.name]
        T = canonicalize(se3.invert(T_world_camera) @ placed.T_world_object, model.symmetries)
        crop = crop_around_box(box, CACHE_PX, CACHE_MARGIN)
        keypoints = crop.to_crop(project(se3.transform(T, model.keypoints_m), K))
        depth = np.asarray(crop.warp(image.depth_m, nearest=True), np.float32)
        corners = crop.to_crop(np.array(box).reshape(2, 2))
        crops.append(
            {
                "rgb": crop.warp(image.rgb),
                "depth": np.clip(np.rint(depth / DEPTH_STEP_M), 0, 65535).astype(np.uint16),
                "keypoints": keypoints.astype(np.float32),
                "object": np.int64(names.index(placed.name)),
                "visible": np.float32(fraction),
                "T_camera_object": T,
                "K": crop.intrinsics(K),
                "box": corners.reshape(4).astype(np.float32),
            }
        )
    return crops


def _frame_boxes(
    image: Rendering,
    seen: list[tuple[int, float, tuple[float, float, float, float]]],
    scene: Scene,
    library: ObjectLibrary,
    frame: int,
) -> list[list[float]]:
    names = list(library.objects)
    height, width = image.instance_ids.shape
    rows = []
    for i, fraction, (x0, y0, x1, y1) in seen:
        edges = [x0 / width, y0 / height, (x1 + 1) / width, (y1 + 1) / height]
        rows.append([frame, names.index(scene.objects[i].name), *edges, fraction])
    return rows


def load_shards(
    folder: Path, keys: tuple[str, ...], first: int = 0, last: int | None = None
) -> Mapping[str, Any]:
    """Concatenate arrays of shards ``first``..``last``; frame numbers in boxes become global."""
    paths = sorted(folder.glob("shard_*.npz"))[first:last]
    if not paths:
        raise DataError(
            f"No shards in {folder} (wanted {first} to {last}). Render them: "
            "python -m heatnet_ros.datasets.synthetic --help"
        )
    parts: dict[str, list[NDArray[Any]]] = {key: [] for key in keys}
    frames = 0
    for path in paths:
        with np.load(path) as shard:
            for key in keys:
                array = shard[key]
                if key == "boxes":
                    array = array + np.array([frames, 0, 0, 0, 0, 0, 0], array.dtype)
                parts[key].append(array)
            if "boxes" in keys:
                frames += len(shard["frames"])
    return {key: np.concatenate(arrays) for key, arrays in parts.items()}


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes-file", type=Path, required=True, help="YAML: SyntheticConfig")
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(arguments)
    config = load_synthetic_config(args.scenes_file)
    args.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("LP_NUM_THREADS", "1")  # llvmpipe: one thread per worker
    count = -(-config.scenes // config.scenes_per_shard)
    start, new = time.monotonic(), 0
    # spawn: an OpenGL context must not be inherited
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        todo = [i for i in range(count) if not (args.out / f"shard_{i:05d}.npz").exists()]
        futures = [pool.submit(write_shard, config, args.out, i) for i in todo]
        for future in as_completed(futures):
            future.result()
            new += 1
            rate = new * config.scenes_per_shard / (time.monotonic() - start)
            left = (len(todo) - new) * config.scenes_per_shard / rate
            print(
                f"\rshard {count - len(todo) + new}/{count}  {rate:.1f} images/s  "
                f"{left / 60:.1f} min left ",
                end="",
                file=sys.stderr,
                flush=True,
            )
    print(file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
