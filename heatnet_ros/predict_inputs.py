"""What ``predict`` runs on: an image, a folder of images, a BOP scene or a BOP split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from heatnet_ros.datasets.bop import (
    BopImage,
    BopScene,
    is_scene,
    load_scene,
    load_split,
    load_targets,
    object_name,
)
from heatnet_ros.datasets.images import (
    CameraFile,
    list_images,
    load_camera_file,
    load_depth_m,
    load_rgb,
)
from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.evaluate import TruePose
from heatnet_ros.types import Frame


@dataclass(frozen=True, eq=False)
class InputImage:
    """One image to run on: read by ``load_frame``; ``name`` is unique among the inputs."""

    name: str
    path: Path
    scene_id: int
    image_id: int
    has_depth: bool
    load_frame: Callable[[], Frame]
    truths: tuple[TruePose, ...] = ()


@dataclass(frozen=True, eq=False)
class InputSet:
    """All inputs. dataset and split: of BOP, else empty."""

    images: tuple[InputImage, ...]
    dataset: str = ""
    split: str = ""
    has_truth: bool = False


def list_bop_inputs(folder: Path, targets: Path | None) -> InputSet | None:
    """Inputs of a BOP scene or split, or None where the folder is neither.

    ``targets``: a BOP targets file; only its images are taken.
    """
    if is_scene(folder):
        scenes = [load_scene(folder)]
        split = folder.resolve().parent.name
    elif folder.is_dir() and any(is_scene(child) for child in folder.iterdir()):
        scenes = load_split(folder)
        split = folder.resolve().name
    else:
        return None
    images = [_bop_input(image, scene) for scene in scenes for image in scene.images]
    if targets is not None:
        wanted = {(target.scene_id, target.image_id) for target in load_targets(targets)}
        images = [image for image in images if (image.scene_id, image.image_id) in wanted]
    if not images:
        raise DataError(f"{folder} has no image (of the targets). Check the folder and --targets.")
    has_truth = any(scene.has_truth for scene in scenes)
    return InputSet(tuple(images), scenes[0].dataset, split, has_truth)


def _bop_input(image: BopImage, scene: BopScene) -> InputImage:
    truths = tuple(
        TruePose(
            object_name(truth.obj_id, scene.dataset), truth.T_camera_object, truth.visible_fraction
        )
        for truth in image.truths
    )
    return InputImage(
        name=f"{image.scene_id:06d}_{image.image_id:06d}",
        path=image.rgb_path,
        scene_id=image.scene_id,
        image_id=image.image_id,
        has_depth=image.depth_path is not None,
        load_frame=image.load_frame,
        truths=truths,
    )


def list_file_inputs(
    path: Path, depth: Path | None, camera: str | None, metres_per_unit: float
) -> InputSet:
    """Inputs of one image or of a folder (``rgb/`` and ``depth/`` matched by stem, or images only).

    The calibration is ``camera``, else a camera.json in the folder. Raises ConfigError without one,
    DataError without an image.
    """
    if path.is_dir():
        if depth is not None:
            raise ConfigError(
                "--depth belongs to a single image. For a folder put the depth images into "
                f"{path / 'depth'} with the names of those in {path / 'rgb'}."
            )
        colors = list_images(path / "rgb" if (path / "rgb").is_dir() else path)
        folder = path / "depth"
        depths = {p.stem: p for p in list_images(folder)} if folder.is_dir() else {}
    elif path.is_file():
        colors, depths = [path], {path.stem: depth} if depth is not None else {}
    else:
        raise DataError(f"Input {path} does not exist. Give an image, a folder or a BOP scene.")
    if not colors:
        raise DataError(f"{path} holds no images. Put them there or into {path / 'rgb'}.")
    names = [color.stem for color in colors]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path} holds several images named {', '.join(twice)}. Rename them.")
    calibration = _find_camera(path, camera)
    images = []
    for index, color in enumerate(colors):
        partner = depths.get(color.stem)
        load = _FileLoader(color, partner, calibration, metres_per_unit)
        images.append(InputImage(color.stem, color, 0, index, partner is not None, load))
    return InputSet(tuple(images))


def _find_camera(path: Path, camera: str | None) -> CameraFile:
    if camera is not None:
        return load_camera_file(camera)
    beside = (path if path.is_dir() else path.parent) / "camera.json"
    if beside.is_file():
        return load_camera_file(str(beside))
    raise ConfigError(
        f"No camera calibration for {path}: a pose cannot be computed without it. Give --camera "
        "fx,fy,cx,cy (pixels), --camera camera.json, a ROS calibration YAML, or put a camera.json "
        "beside the images."
    )


@dataclass(frozen=True, eq=False)
class _FileLoader:
    color: Path
    depth: Path | None
    camera: CameraFile
    metres_per_unit: float

    def __call__(self) -> Frame:
        rgb = load_rgb(self.color)
        self.camera.check_size(rgb.shape[:2], self.color)
        depth_m = None
        if self.depth is not None:
            depth_m = load_depth_m(self.depth, self.metres_per_unit, rgb.shape[:2])
        return Frame(rgb, self.camera.K, depth_m, self.camera.distortion, 0, str(self.color))
