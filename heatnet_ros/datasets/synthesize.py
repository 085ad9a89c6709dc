"""``python -m heatnet_ros synthesize``: rendered scenes of an object library, in the BOP layout.

Scene i of a split depends on (seed, split, i) alone: any number of workers writes the same files,
and an interrupted command continues with the first scene that is missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from heatnet_ros.config import build_config, check_number, check_range, load_yaml
from heatnet_ros.datasets.bop import LINEMOD_NAMES, object_id
from heatnet_ros.datasets.bop_writer import SceneWriter, WrittenObject, write_models
from heatnet_ros.datasets.provenance import describe_sources, record_sources
from heatnet_ros.datasets.worker_pool import run_in_workers
from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.files import make_folder
from heatnet_ros.geometry import se3
from heatnet_ros.mesh import Mesh, load_ply
from heatnet_ros.objects import ObjectLibrary, load_objects
from heatnet_ros.progress import Progress
from heatnet_ros.rendering.decimate import decimate
from heatnet_ros.rendering.rasterizer import Rasterizer, Rendering
from heatnet_ros.rendering.scene import (
    ROOM_HALF_SIZE_M,
    Scene,
    SceneSettings,
    build_table_scene,
    random_camera,
)
from heatnet_ros.rendering.sensor import apply_color_sensor, apply_depth_sensor
from heatnet_ros.types import FloatArray

BYTES_PER_IMAGE = 330_000
MAX_SIDE_PX = 16384  # OpenGL draws nothing larger
RENDERERS = ("raster", "path")


@dataclass(frozen=True)
class SyntheticConfig:
    """One data set. camera: fx, fy, cx, cy, width, height in pixels.

    images_per_scene: pictures in a BOP scene folder; cameras_per_layout of them show the same
    table. clutter: mesh files of further distractors. max_faces: meshes without texture are
    decimated to it (0: never). jpeg_quality: range. samples: paths per pixel of the path tracer,
    which are denoised. variant: see ``PathTracer``.
    """

    objects_file: str = ""
    camera: tuple[float, ...] = (615.0, 615.0, 319.5, 239.5, 640, 480)
    images: int = 4000
    images_per_scene: int = 40
    cameras_per_layout: int = 4
    seed: int = 0
    renderer: str = "raster"
    samples: int = 4
    variant: str = "scalar_rgb"
    clutter: tuple[str, ...] = ()
    clutter_unit: str = "m"
    max_faces: int = 6000
    sensor: float = 1.0
    jpeg_quality: tuple[int, int] = (70, 96)
    settings: SceneSettings = field(default_factory=SceneSettings)

    def __post_init__(self) -> None:
        if self.renderer not in RENDERERS:
            raise ConfigError(f"renderer: expected raster or path, got '{self.renderer}'.")
        _check_camera(self.camera)
        if min(self.images, self.images_per_scene) < 1:
            raise ConfigError(
                "images and images_per_scene: expected at least 1, got "
                f"{self.images}, {self.images_per_scene}."
            )
        if self.seed < 0 or min(self.cameras_per_layout, self.samples) < 1:
            raise ConfigError(
                "seed: expected 0 or more, cameras_per_layout and samples 1 or more; got "
                f"{self.seed}, {self.cameras_per_layout}, {self.samples}."
            )
        check_range("jpeg_quality", self.jpeg_quality, 1, 100, whole=True)
        check_number("sensor", self.sensor, 0)
        check_number("max_faces", self.max_faces, 0, whole=True)

    @property
    def K(self) -> FloatArray:
        """3x3 intrinsics."""
        fx, fy, cx, cy = self.camera[:4]
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height of the images."""
        return int(self.camera[4]), int(self.camera[5])


def _check_camera(camera: Any) -> None:
    """Raise ConfigError unless a camera of six numbers can take a picture."""
    names = ("fx", "fy", "cx", "cy", "width", "height")
    if len(camera) != len(names):
        raise ConfigError(f"camera: expected {', '.join(names)}, got {camera!r}.")
    for name, value in zip(names[:4], camera[:4], strict=True):
        check_number(f"camera: {name}", value, 1 if name in ("fx", "fy") else -math.inf)
    for name, value in zip(names[4:], camera[4:], strict=True):
        # a file may say 640.0
        side = int(value) if isinstance(value, float) and value.is_integer() else value
        check_number(f"camera: {name}", side, 1, MAX_SIDE_PX, whole=True)


def load_synthetic_config(path: Path) -> SyntheticConfig:
    """Read a YAML file; lists become tuples. Raises ConfigError."""
    return build_config(SyntheticConfig, _tuples(load_yaml(path, "Scene file")), str(path))


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def number_objects(library: ObjectLibrary) -> dict[str, int]:
    """Object name -> BOP id: LINEMOD's where all names are LINEMOD's, else 1, 2, 3 ..."""
    names = list(library.objects)
    if set(names) <= set(LINEMOD_NAMES.values()):
        return {name: object_id(name, "lm") for name in names}
    return {name: i for i, name in enumerate(names, start=1)}


def write_scene(config: SyntheticConfig, split: Path, index: int) -> Path:
    """Render one BOP scene folder, e.g. ``data/parts/train/000007``, unless it is there already.

    One that has fewer images than it now should have is rendered anew.

    Raises DataError when it cannot be written, EngineError without a renderer.
    """
    folder = split / f"{index:06d}"
    if _is_whole(config, split, index):
        return folder
    cv2.setNumThreads(1)
    library, meshes, clutter = _load(config)
    obj_ids = number_objects(library)
    rng = np.random.default_rng((config.seed, zlib.crc32(split.name.encode()), index))
    quality = int(rng.integers(config.jpeg_quality[0], config.jpeg_quality[1] + 1))
    with Rasterizer(config.size_wh) as rasterizer, _path_tracer(config) as tracer:
        writer = SceneWriter(folder, quality)
        for number, scene in _layouts(config, _count_images(config, index), meshes, clutter, rng):
            T_world_camera = random_camera(rng, config.settings)
            image = rasterizer.render(scene, config.K, T_world_camera)
            rgb = image.rgb
            if tracer is not None:
                rgb = tracer.render(scene, config.K, T_world_camera, seed=number).rgb
            rgb = apply_color_sensor(rng, rgb, config.sensor)
            depth_m = apply_depth_sensor(rng, image.depth_m) if config.sensor else image.depth_m
            image = dataclasses.replace(image, rgb=rgb, depth_m=depth_m)
            objects = _written(rasterizer, scene, image, config.K, T_world_camera, obj_ids)
            writer.add(rgb, depth_m, config.K, objects)
    return writer.close()


def _count_images(config: SyntheticConfig, index: int) -> int:
    """How many images scene ``index`` has; the last one may have fewer than the others."""
    return min(config.images_per_scene, config.images - index * config.images_per_scene)


def _is_whole(config: SyntheticConfig, split: Path, index: int) -> bool:
    return count_written(split / f"{index:06d}") >= _count_images(config, index)


def count_written(scene: Path) -> int:
    """How many images a scene folder has; 0 when it is not there."""
    return sum(1 for _ in (scene / "rgb").glob("*.jpg"))


def _list_scenes(split: Path) -> list[Path]:
    """Scene folders; those being written have another name."""
    return [path for path in split.iterdir() if path.name.isdigit()]


def _write_scene_name(config: SyntheticConfig, split: Path, index: int) -> str:
    """``write_scene``, with a note for the progress."""
    return f"{split.name}/{write_scene(config, split, index).name}"


def _layouts(
    config: SyntheticConfig,
    count: int,
    meshes: Mapping[str, Mesh],
    clutter: tuple[Mesh, ...],
    rng: np.random.Generator,
) -> Iterator[tuple[int, Scene]]:
    """Image number and what stands on the table; a layout serves several cameras."""
    for number in range(count):
        if number % config.cameras_per_layout == 0:
            scene = build_table_scene(meshes, rng, config.settings, clutter)
        yield number, scene


class _NoTracer:
    """Stands where a path tracer would, when scenes are rasterised."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def _path_tracer(config: SyntheticConfig) -> Any:
    if config.renderer == "raster":
        return _NoTracer()
    from heatnet_ros.rendering.pathtracer import PathTracer

    return PathTracer(config.size_wh, config.samples, variant=config.variant)


@lru_cache(maxsize=1)
def _load(config: SyntheticConfig) -> tuple[ObjectLibrary, dict[str, Mesh], tuple[Mesh, ...]]:
    library = load_objects(Path(config.objects_file))
    meshes = {n: _simplify(_required_mesh(library, n), config) for n in library.objects}
    clutter = (load_ply(Path(p), config.clutter_unit) for p in config.clutter)
    return library, meshes, tuple(_simplify(mesh, config) for mesh in clutter)


def _simplify(mesh: Mesh, config: SyntheticConfig) -> Mesh:
    """Fewer faces, but a print on an object is worth more than the time."""
    return mesh if mesh.texture is not None else decimate(mesh, config.max_faces)


def _required_mesh(library: ObjectLibrary, name: str) -> Mesh:
    mesh = library[name].load_mesh()
    if mesh is None:
        raise DataError(
            f"Rendering needs the mesh of '{name}': {library[name].mesh_path} is not there. "
            f"Correct 'mesh' in {library.path}."
        )
    return mesh


def _written(
    rasterizer: Rasterizer,
    scene: Scene,
    image: Rendering,
    K: FloatArray,
    T_world_camera: FloatArray,
    obj_ids: Mapping[str, int],
) -> list[WrittenObject]:
    """The truth of every object that the image, as its sensor gives it, shows a pixel of."""
    T_camera_world = se3.invert(T_world_camera)
    width, height = rasterizer.size_wh
    found = []
    for i, placed in enumerate(scene.objects):
        mask = image.instance_ids == i + 1
        seen = int(np.count_nonzero(mask))
        if not seen:
            continue
        T = T_camera_world @ placed.T_world_object
        whole, (x, y) = rasterizer.silhouette(placed.mesh, K, T)
        if not whole.any():  # it reaches behind the camera: its whole is not known
            whole, (x, y) = mask, (0, 0)
        inside = whole[max(0, -y) : max(0, height - y), max(0, -x) : max(0, width - x)]
        top, left = max(0, y), max(0, x)
        depth_m = image.depth_m[top : top + inside.shape[0], left : left + inside.shape[1]]
        ys, xs = np.flatnonzero(whole.any(axis=1)), np.flatnonzero(whole.any(axis=0))
        box = (x + int(xs[0]), y + int(ys[0]), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1)
        counts = (int(np.count_nonzero(whole)), int(np.count_nonzero(inside & (depth_m > 0))), seen)
        found.append(WrittenObject(obj_ids[placed.name], T, mask, box, counts))
    return found


def synthesize(config: SyntheticConfig, out: Path, split: str, workers: int) -> Path:
    """Write the models and every scene of a split that is missing; returns the split's folder.

    Raises DataError when the folder holds scenes made from something else (``record_sources``).
    """
    folder = out / split
    if workers < 1:
        raise ConfigError(f"--workers: expected 1 or more, got {workers}.")
    make_folder(folder, "Give another --out, or make room there and let it be written to.")
    library, meshes, clutter = _load(dataclasses.replace(config, max_faces=0))
    obj_ids = number_objects(library)
    record_sources(out, split, describe_sources(_settings(config), meshes, obj_ids, clutter))
    write_models(
        out / "models",
        meshes,
        obj_ids,
        {name: model.diameter_m for name, model in library.objects.items()},
        {name: model.symmetries for name, model in library.objects.items()},
    )
    _check_room(folder, config.images - sum(count_written(path) for path in _list_scenes(folder)))
    scenes = -(-config.images // config.images_per_scene)
    todo = [i for i in range(scenes) if not _is_whole(config, folder, i)]
    progress = Progress("scenes", len(todo))
    os.environ["LP_NUM_THREADS"] = "0"  # llvmpipe: no threads of its own, a worker is a thread
    jobs = [(config, folder, i) for i in todo]
    remedy = "Run the same command with fewer --workers: it continues."
    run_in_workers(_write_scene_name, jobs, workers, progress, remedy)
    return folder


def _settings(config: SyntheticConfig) -> dict[str, Any]:
    """The settings that shape an image; files count by their content, not by their names."""
    settings = dataclasses.asdict(config)
    room_half_size_m = config.settings.room_half_size_m
    if room_half_size_m > ROOM_HALF_SIZE_M:  # it follows from the others, but once it did not
        settings["settings"]["room_half_size_m"] = room_half_size_m
    unused = ["images", "objects_file", "clutter", "clutter_unit"]
    unused += ["samples", "variant"] if config.renderer == "raster" else []
    return {key: value for key, value in settings.items() if key not in unused}


def _check_room(folder: Path, images: int) -> None:
    free, wanted = shutil.disk_usage(folder).free, images * BYTES_PER_IMAGE
    if free < wanted:
        raise DataError(
            f"{images} images take about {wanted / 1e9:.1f} GB, {folder} has {free / 1e9:.1f} GB "
            "free. Give another --out or fewer --images."
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.add_argument("--objects", help="object library (config/objects/*.yaml)")
    parser.add_argument("--scenes-file", type=Path, help="YAML with further settings")
    parser.add_argument("--out", type=Path, required=True, help="data set folder (data/NAME)")
    parser.add_argument("--split", default="train", help="train, test or a name of yours")
    parser.add_argument("--images", type=int, help="pictures in all (4000)")
    parser.add_argument("--seed", type=int, help="same seed, same images (0)")
    parser.add_argument(
        "--renderer", choices=RENDERERS, help="raster: fast; path: path traced, about 20 x slower"
    )
    parser.add_argument(
        "--distance", metavar="NEAR,FAR", help="of the camera from the table's middle, metres"
    )
    parser.add_argument(
        "--like",
        metavar="BOP_FOLDER:SPLIT",
        help="take the camera, distances and elevations from a data set's statistics",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)


def read_config(args: argparse.Namespace) -> SyntheticConfig:
    """The scenes file (or the defaults) with the command line's options over it."""
    config = load_synthetic_config(args.scenes_file) if args.scenes_file else SyntheticConfig()
    options = {"objects_file": args.objects, "images": args.images, "seed": args.seed}
    options["renderer"] = args.renderer
    config = dataclasses.replace(config, **{k: v for k, v in options.items() if v is not None})
    if not config.objects_file:
        raise ConfigError("--objects is missing: which library (config/objects/*.yaml) to render?")
    if args.like:
        from heatnet_ros.datasets.statistics import like_dataset

        folder, _, split = args.like.partition(":")
        config = like_dataset(config, Path(folder), split or "test")
    if args.distance:
        distance_m = parse_distance(args.distance)
        settings = dataclasses.replace(config.settings, distance_m=distance_m)
        config = dataclasses.replace(config, settings=settings)
    return config


def parse_distance(text: str) -> tuple[float, float]:
    """``NEAR,FAR`` in metres. Raises ConfigError."""
    try:
        near, far = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--distance '{text}': expected NEAR,FAR such as 0.4,1.2.") from error
    if not 0.1 < near < far < 10:
        raise ConfigError(f"--distance '{text}': expected 0.1 < NEAR < FAR < 10 metres.")
    return near, far


def run(args: argparse.Namespace) -> int:
    """Run the subcommand. Raises HeatnetError."""
    config = read_config(args)
    folder = synthesize(config, args.out, args.split, args.workers)
    count = sum(count_written(path) for path in _list_scenes(folder))
    print(f"{count} images in {folder}")
    return 0
