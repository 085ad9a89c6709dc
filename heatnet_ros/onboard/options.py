"""What the user asked for, and where everything goes."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from heatnet_ros.datasets.synthesize import parse_distance
from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.onboard.budget import LEAST_IMAGES_OF_A_SET
from heatnet_ros.rendering.scene import POSES

# below this nothing worth having can be rendered, trained, exported and measured
LEAST_BUDGET_S = 8 * 60.0
_BUDGET = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)?")
_UNIT_S = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, None: 60.0}


@dataclass(frozen=True)
class Places:
    """Every file and folder of a set. root: ``Path()`` for the current folder, else absolute."""

    root: Path
    name: str

    @property
    def library(self) -> Path:
        """The object library."""
        return self.root / "config" / "objects" / f"{self.name}.yaml"

    @property
    def params(self) -> Path:
        """The node's parameter file."""
        return self.root / "config" / f"pose_{self.name}.yaml"

    @property
    def data(self) -> Path:
        """The rendered data set."""
        return self.root / "data" / self.name

    @property
    def run(self) -> Path:
        """State, logs, training files, trainings and the report."""
        return self.root / "runs" / self.name

    @property
    def report(self) -> Path:
        """The report for people."""
        return self.run / "report.html"

    @property
    def evaluation(self) -> Path:
        """All numbers of the evaluation."""
        return self.run / "evaluation.json"

    @property
    def overlays(self) -> Path:
        """What the evaluation keeps while it runs, with an overlay for every image."""
        return self.run / "evaluation"

    @property
    def meshes(self) -> Path:
        """Folder of the meshes as the node reads them."""
        return self.library.parent / self.name

    def mesh(self, object_name: str) -> Path:
        """The mesh of an object as the node reads it: PLY in metres."""
        return self.meshes / f"{object_name}.ply"

    def model(self, network: str) -> Path:
        """Model folder of ``yolo`` or ``heatnet``."""
        return self.root / "models" / f"{self.name}_{network}"

    def training(self, network: str) -> Path:
        """Folder of a network's training."""
        return self.run / network

    def training_file(self, network: str) -> Path:
        """What a network's training reads."""
        return self.run / f"{network}.yaml"

    @property
    def scenes_file(self) -> Path:
        """What the rendering reads."""
        return self.run / "scenes.yaml"

    def log(self, step: str) -> Path:
        """What a step said."""
        return self.run / "logs" / f"{step}.log"


@dataclass(frozen=True)
class Options:
    """What the results depend on. Lengths in metres; None: the planner decides.

    meshes, init: path as given -> sha256 of the file. camera: fx, fy, cx, cy, width, height.
    """

    name: str
    meshes: Mapping[str, str]
    unit: str
    rename: tuple[str, ...]
    symmetry: tuple[str, ...]
    accept_symmetries: bool
    ignore_colors: bool
    no_symmetries: bool
    keypoints: int
    rgb: bool
    budget_s: float
    poses: str
    camera: tuple[float, ...] | None
    like: str | None
    distance_m: tuple[float, float] | None
    images: int | None
    test_images: int | None
    samples: int | None
    init: Mapping[str, str]
    seed: int

    @property
    def needs_measuring(self) -> bool:
        """Whether anything is left for the planner to choose."""
        return self.images is None or self.samples is None


def read_options(args: argparse.Namespace) -> Options:
    """Check the command line. Raises ConfigError, DataError when a mesh cannot be read."""
    _check_arguments(args)
    options = Options(
        name=args.name,
        meshes={str(path): _hash(path, "Mesh") for path in args.meshes},
        unit=args.unit,
        rename=tuple(args.rename),
        symmetry=tuple(args.symmetry),
        accept_symmetries=args.accept_symmetries,
        ignore_colors=args.ignore_colors,
        no_symmetries=args.no_symmetries,
        keypoints=args.keypoints,
        rgb=args.rgb,
        budget_s=parse_budget(args.budget),
        poses=args.poses,
        camera=_parse_camera(args.camera),
        like=args.like,
        distance_m=parse_distance(args.distance) if args.distance else None,
        images=args.images,
        test_images=args.test_images,
        samples=args.samples,
        init={str(args.init): _hash(args.init, "--init")} if args.init else {},
        seed=args.seed,
    )
    if options.needs_measuring and options.budget_s < LEAST_BUDGET_S:
        raise ConfigError(
            f"--budget {args.budget}: too little to render, train, export and measure anything "
            f"sensible; expected at least {LEAST_BUDGET_S / 60:.0f}m. (To try the steps out "
            "without a useful result: --images 120 --samples 640.)"
        )
    return options


def _check_arguments(args: argparse.Namespace) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", args.name):
        raise ConfigError(
            f"--name '{args.name}': expected letters, digits, '_' and '-': it becomes a part of "
            "file names."
        )
    if args.accept_symmetries and args.no_symmetries:
        raise ConfigError("--accept-symmetries and --no-symmetries contradict each other.")
    if args.ignore_colors and not args.accept_symmetries:
        raise ConfigError("--ignore-colors says which proposals --accept-symmetries takes: add it.")
    if args.camera and args.like:
        raise ConfigError("--camera and --like both say what the camera is; give one.")
    if args.images is not None and args.images < LEAST_IMAGES_OF_A_SET:
        raise ConfigError(
            f"--images: expected {LEAST_IMAGES_OF_A_SET} or more, got {args.images}: a hundred are "
            "held out of training."
        )
    for flag in ("test_images", "samples"):
        value = getattr(args, flag)
        if value is not None and value < 1:
            raise ConfigError(f"--{flag.replace('_', '-')}: expected 1 or more, got {value}.")
    if args.keypoints < 4:
        raise ConfigError(f"--keypoints: at least 4 are needed for a pose, got {args.keypoints}.")
    twice = [str(path) for path in args.meshes if args.meshes.count(path) > 1]
    if twice:
        raise ConfigError(f"Mesh {twice[0]} is given twice. Name each file once.")
    if args.workers < 1:
        raise ConfigError(f"--workers: expected 1 or more, got {args.workers}.")
    if args.seed < 0:
        raise ConfigError(f"--seed: expected a whole number from 0, got {args.seed}.")


def places_of(args: argparse.Namespace) -> Places:
    """Paths under ``--out-root``: relative ones where it is the current folder."""
    root = args.out_root.resolve()
    return Places(Path() if root == Path.cwd() else root, args.name)


def parse_budget(text: str) -> float:
    """``30m``, ``2h``, ``90`` (minutes) -> seconds. Raises ConfigError."""
    match = _BUDGET.fullmatch(text.strip().lower())
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f"--budget '{text}': expected a time such as 30m, 90m or 2h.")
    return float(match[1]) * _UNIT_S[match[2]]


def _hash(path: Path, what: str) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise DataError(
            f"{what} {path} cannot be read: {error.strerror}. Check its path."
        ) from error
    return digest.hexdigest()


def _parse_camera(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 6 or min(values[:2], default=0) <= 0 or min(values[4:], default=0) < 64:
        raise ConfigError(
            f"--camera '{text}': expected fx,fy,cx,cy,width,height in pixels such as "
            "615,615,319.5,239.5,640,480 (ROS: k[0], k[4], k[2], k[5], width, height of "
            "camera_info)."
        )
    return (*values[:4], int(values[4]), int(values[5]))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    add = parser.add_argument
    add(
        "meshes", nargs="+", type=Path, metavar="MESH", help="PLY, OBJ, STL or GLB, one object each"
    )
    add("--name", required=True, help="name of the set; part of the names of all results")
    add("--budget", default="60m", metavar="TIME",
        help="everything ends within this time, such as 30m or 2h (60m); the machine is measured "
        "and images, networks and training time are chosen for it")  # fmt: skip
    add("--accept-symmetries", action="store_true",
        help="take symmetries that the geometry shows and no colour contradicts")  # fmt: skip
    add("--ignore-colors", action="store_true",
        help="with --accept-symmetries: also those that a label or print breaks")  # fmt: skip
    add("--no-symmetries", action="store_true", help="take none but those of --symmetry")
    add("--symmetry", action="append", default=[], metavar="OBJECT:axis=X,Y,Z:fold=N",
        help="a symmetry, or OBJECT:axis=0,0,1:continuous; may be repeated; for this object "
        "nothing is proposed then")  # fmt: skip
    add("--unit", choices=("auto", "m", "mm"), default="auto", help="of the meshes (auto: by size)")
    add("--rename", action="append", default=[], metavar="FILE=NAME",
        help="name of an object whose file is called otherwise")  # fmt: skip
    add("--keypoints", type=int, default=50, metavar="N", help="keypoints per object (50)")
    add("--rgb", action="store_true", help="a network for colour images, without depth (RGB-D)")
    add("--poses", choices=POSES, default="upright",
        help="how objects lie: upright (the mesh's z axis up, turned about it; the default and "
        "quickest to learn), resting (on any face they can lie on) or any. A pose that training "
        "never shows is not found later")  # fmt: skip
    add("--camera", metavar="FX,FY,CX,CY,W,H",
        help="camera of the training images in pixels (615,615,319.5,239.5,640,480); the network "
        "works with others too, best with similar ones")  # fmt: skip
    add("--like", metavar="BOP_FOLDER:SPLIT",
        help="take camera, distances and elevations from a data set's statistics")  # fmt: skip
    add("--distance", metavar="NEAR,FAR",
        help="of the camera, metres (about 2.5 to 7 object diameters)")  # fmt: skip
    add("--images", type=int, metavar="N", help="training images, instead of the planner's number")
    add("--test-images", type=int, metavar="N", help="held-out images for the evaluation (200)")
    add("--samples", type=int, metavar="N",
        help="train each network for N samples instead of the planner's minutes; with --images "
        "nothing is left to plan and --budget has no effect")  # fmt: skip
    add("--init", type=Path, metavar="CHECKPOINT",
        help="weights that HeatNet starts from, such as runs/X/heatnet/final.pt")  # fmt: skip
    add("--seed", type=int, default=0, help="same seed, same images and order (0)")
    add("--workers", type=int, default=os.cpu_count() or 1, help="rendering processes (all cores)")
    add("--out-root", type=Path, default=Path(), metavar="FOLDER",
        help="where config, data, models and runs are written (the current folder)")  # fmt: skip
    add("--dry-run", action="store_true", help="print the steps with commands and minutes, and end")
    add("--restart", action="store_true",
        help="start from nothing: deletes what an earlier onboard of this name made")  # fmt: skip
