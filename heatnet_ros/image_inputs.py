"""An image, or a folder of them, as what ``predict`` runs on and ``replay`` publishes."""

from __future__ import annotations

import argparse
import math
import re
import sys
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from heatnet_ros.datasets.bop import is_scene
from heatnet_ros.datasets.images import (
    CameraFile,
    list_images,
    load_camera_file,
    load_depth_m,
    load_rgb,
)
from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.predict_inputs import InputImage, InputSet
from heatnet_ros.types import Frame

# where a folder keeps its colour images, if not in itself, and its calibration
COLOR_FOLDERS = ("rgb", "color")
CAMERA_FILES = ("camera.json", "camera_info.yaml")
_SECONDS, _NANOSECONDS = re.compile(r"\d+\.\d+"), re.compile(r"[1-9]\d{17,18}")


def add_calibration_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what images do not say of themselves: ``camera`` and ``depth_scale``."""
    parser.add_argument(
        "--camera",
        metavar="FILE|fx,fy,cx,cy",
        help="calibration of images: BOP camera.json, ROS calibration YAML, or four numbers in "
        "pixels (default: camera.json or camera_info.yaml beside them)",
    )
    parser.add_argument(
        "--depth-scale",
        type=float,
        default=0.001,
        help="metres per unit of the depth images (0.001: millimetres)",
    )


def check_depth_scale(metres_per_unit: float) -> None:
    """Raise ConfigError where ``--depth-scale`` is no scale."""
    if not 0 < metres_per_unit < math.inf:
        raise ConfigError(f"--depth-scale: expected metres per unit > 0, got {metres_per_unit}.")


def list_file_inputs(
    path: Path, depth: Path | None, camera: str | None, metres_per_unit: float
) -> InputSet:
    """Inputs of one image or of a folder: images, or ``rgb/`` (or ``color/``) and ``depth/``.

    Depth has the names of colour. The calibration is ``camera``, else a file of the folder
    (CAMERA_FILES). Where all names are stamps (``name_to_stamp_ns``) the images have these, and
    their order. Raises ConfigError without a calibration, DataError without an image or where no
    depth image fits.
    """
    if path.is_dir():
        if depth is not None:
            raise ConfigError(
                "--depth belongs to a single image. For a folder put the depth images into "
                f"{path / 'depth'} with the names of those in {path / 'rgb'}."
            )
        colors, depths = _list_folder(path)
    elif path.is_file():
        colors, depths = [path], {path.stem: depth} if depth is not None else {}
    else:
        raise DataError(
            f"Input {path} does not exist. Give an image, a folder, a BOP scene, a bag or `sample`."
        )
    if not colors:
        raise DataError(_describe_empty(path))
    names = [color.stem for color in colors]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path} holds several images named {', '.join(twice)}. Rename them.")
    calibration = _find_camera(path, camera)
    stamps = [name_to_stamp_ns(name) for name in names]
    found = [stamp for stamp in stamps if stamp is not None]
    if path.is_dir() and len(found) == len(colors):
        order = sorted(range(len(colors)), key=found.__getitem__)
    else:
        order, stamps = list(range(len(colors))), [None] * len(colors)
    images = []
    for index, i in enumerate(order):
        color, partner = colors[i], depths.get(names[i])
        load = _FileLoader(color, partner, calibration, metres_per_unit)
        images.append(
            InputImage(names[i], color, 0, index, partner is not None, load, stamp_ns=stamps[i])
        )
    return InputSet(tuple(images))


def name_to_stamp_ns(name: str) -> int | None:
    """A file's name without its ending as a stamp, None where it is none.

    Seconds have a decimal point (1311868164.363181), nanoseconds 18 or 19 digits: they are of our
    time. Other numbers count images.
    """
    if _SECONDS.fullmatch(name):
        return int(Decimal(name) * 10**9)
    return int(name) if _NANOSECONDS.fullmatch(name) else None


def _list_folder(path: Path) -> tuple[list[Path], dict[str, Path]]:
    """Colour images, and name -> depth image."""
    named = [path / name for name in COLOR_FOLDERS if (path / name).is_dir()]
    colors = list_images(named[0] if named else path)
    folder = path / "depth"
    depths = {p.stem: p for p in list_images(folder)} if folder.is_dir() else {}
    if colors and depths and not any(color.stem in depths for color in colors):
        raise DataError(
            f"None of the {len(depths)} images in {folder} has the name of one in "
            f"{colors[0].parent}: there the first is {colors[0].name}, here "
            f"{next(iter(depths.values())).name}. Name aligned depth as the colour image it was "
            "taken with."
        )
    lacking = sum(color.stem not in depths for color in colors)
    if depths and lacking:
        print(
            f"note: {lacking} of {len(colors)} images have no depth image of their name in "
            f"{folder}",
            file=sys.stderr,
        )
    return colors, depths


def _describe_empty(path: Path) -> str:
    folders = [child for child in path.iterdir() if child.is_dir()]
    splits = sorted(child.name for child in folders if any(map(is_scene, child.iterdir())))
    if splits:
        return (
            f"{path} is a BOP data set. Give one of its splits ({', '.join(splits)}), such as "
            f"{path / splits[0]}, or a scene in it."
        )
    return (
        f"{path} holds no images: expected them there or in {path / 'rgb'} and {path / 'depth'}, "
        "with camera.json. Nor is it a bag (metadata.yaml) or a BOP scene (scene_camera.json)."
    )


def _find_camera(path: Path, camera: str | None) -> CameraFile:
    if camera is not None:
        return load_camera_file(camera)
    folder = path if path.is_dir() else path.parent
    for beside in (folder / name for name in CAMERA_FILES):
        if beside.is_file():
            return load_camera_file(str(beside))
    scene = folder.parent
    if is_scene(scene):
        raise ConfigError(
            f"{path} belongs to the BOP scene {scene}, which knows its camera and depth: give "
            "that folder, or --camera."
        )
    raise ConfigError(
        f"No camera calibration for {path}: a pose cannot be computed without it. Give --camera "
        "fx,fy,cx,cy (pixels), --camera camera.json, a ROS calibration YAML, or put a camera.json "
        "or camera_info.yaml beside the images."
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
