"""The one command line: ``python -m heatnet_ros COMMAND``."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import os
import sys
from types import ModuleType
from typing import NamedTuple

from heatnet_ros import __version__
from heatnet_ros.errors import HeatnetError


class Command(NamedTuple):
    """A subcommand: its module offers ``add_arguments(parser)`` and ``run(args) -> int``."""

    module: str
    summary: str


COMMANDS = {
    "demo": Command(
        "heatnet_ros.ros.demo",
        "start a synthetic camera, the node and a monitor; measure poses against the truth",
    ),
    "predict": Command(
        "heatnet_ros.predict",
        "find poses in images, a bag or a BOP scene without ROS; draw them, write JSON and CSV",
    ),
    "replay": Command(
        "heatnet_ros.ros.replay",
        "publish a bag or a BOP scene as a camera would, for pose_node; `replay sample` has one",
    ),
    "record": Command(
        "heatnet_ros.record_command",
        "record a camera's topics, or a rendered film with true poses, as a bag",
    ),
    "onboard": Command(
        "heatnet_ros.onboard_command",
        "from CAD files to a model that the node runs: render, train, export, measure, report",
    ),
    "keypoints": Command(
        "heatnet_ros.keypoints_command",
        "describe your own meshes as an object library (diameter, symmetries, keypoints)",
    ),
    "synthesize": Command(
        "heatnet_ros.datasets.synthesize",
        "render training and test images of an object library, in the BOP layout",
    ),
    "train": Command(
        "heatnet_ros.train_command",
        "train the detector or HeatNet; interrupted, the same command continues",
    ),
    "export": Command(
        "heatnet_ros.export_command",
        "turn a trained run into a model folder, if it computes the same as the network",
    ),
    "quantize": Command(
        "heatnet_ros.quantize_command",
        "make the INT8 edition of a model folder, if its answers stay the same",
    ),
    "evaluate": Command(
        "heatnet_ros.evaluate_command",
        "measure the node's pipeline on a data set: ADD(-S), 2D projection, BOP's metrics, mAP",
    ),
    "doctor": Command(
        "heatnet_ros.doctor_command",
        "say why no poses come: files, engines, camera topics, the running node",
    ),
    "bench": Command(
        "heatnet_ros.bench_command",
        "measure speed: stages and end to end, every engine, beside a plain baseline",
    ),
    "download": Command(
        "heatnet_ros.datasets.download",
        "fetch public BOP data sets such as lm, lmo and ycbv; resumes, verifies, unpacks",
    ),
}

_DESCRIPTION = """\
6D pose of known objects from RGB-D images.

  An object library (config/objects/*.yaml) says what the objects are, a model folder
  (models/*/manifest.yaml) what a network expects, a parameter file (config/pose_*.yaml) names
  both. The same parameter file drives the ROS 2 node and `predict`."""

_EXAMPLES = """\
examples:
  python -m heatnet_ros demo --seconds 20
  python -m heatnet_ros predict photo.png --depth depth.png --camera 615,615,320,240 \\
      --params config/pose_demo.yaml
  python -m heatnet_ros doctor --params config/pose_demo.yaml --camera realsense
  python -m heatnet_ros predict sample --params config/pose_demo.yaml   (a bag that ships)
  python -m heatnet_ros replay sample --loop                            (a camera for the node)
  python -m heatnet_ros record lab.mcap --seconds 10                    (of your camera)
  python -m heatnet_ros onboard bracket.ply housing.stl --name parts --budget 60m \\
      --accept-symmetries
  ros2 launch heatnet_ros pose.launch.py params_file:=config/pose_parts.yaml   (with ROS 2)

what onboard does, step by step (both splits, and the same for the detector, yolo):
  python -m heatnet_ros keypoints bracket.ply --name parts --out config/objects/parts.yaml
  python -m heatnet_ros synthesize --objects config/objects/parts.yaml --out data/parts \\
      --split train --images 4000
  python -m heatnet_ros train --config runs/parts/heatnet.yaml --out runs/parts/heatnet
  python -m heatnet_ros export --run runs/parts/heatnet --out models/parts_heatnet
  python -m heatnet_ros evaluate --dataset data/parts --split test --params config/pose_parts.yaml

faster on a CPU with AMX or VNNI, where the answers stay the same:
  python -m heatnet_ros quantize --model models/parts_heatnet --dataset data/parts \\
      --out models/parts_heatnet_int8
  python -m heatnet_ros bench --params config/pose_parts.yaml

public data sets:
  python -m heatnet_ros download lmo --out data

`python -m heatnet_ros COMMAND --help` explains a command."""

_FULL = "Free space there, or let the command write elsewhere; run again, it goes on where it can."
_FORBIDDEN = "Give yourself the right to use it, or another place that you may write to."
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: _FORBIDDEN,
    errno.ENOENT: "Check the path: it, or a folder above it, does not exist.",
    errno.ENOTDIR: "Check the path: a part of it is a file, where a folder is needed.",
    errno.EEXIST: "Something else lies there: move it away or give another path.",
    errno.EISDIR: "A file was expected there, and it is a folder: correct the path.",
    errno.EMFILE: "Allow more open files (`ulimit -n 4096`) or use fewer workers.",
}


def build_parser(selected: str | None) -> argparse.ArgumentParser:
    """Build the parser; only the selected command's module is imported, so that help is quick."""
    parser = argparse.ArgumentParser(
        prog="python -m heatnet_ros",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"heatnet_ros {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(
            name,
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + ".",
        )
        if name == selected:
            importlib.import_module(command.module).add_arguments(subparser)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status: 0 good, 1 failed, 2 wrong usage.

    ``doctor`` returns the worst of its findings, 0 ok, 1 warnings, 2 errors; 3 where it failed.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    selected = next((word for word in arguments if word in COMMANDS), None)
    parser = build_parser(selected)
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.print_help()
        return 2
    command = importlib.import_module(COMMANDS[args.command].module)
    try:
        status = int(command.run(args))
        # the command is done: a reader such as `head` may leave early
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
    except HeatnetError as error:
        status = _fail(command, str(error))
    except OSError as error:
        status = _fail(command, describe_os_error(error, getattr(args, "out", None)))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    _drop_unwritable_output()
    return status


def describe_os_error(error: OSError, out: object) -> str:
    """One line: what the system refused, where, and what to do. ``out``: where the command writes.

    A full disk names no file when it is noticed, so ``out`` is named then.
    """
    if isinstance(error, BrokenPipeError):
        return (
            "Nobody reads the output any more (`| head`?), so the command stopped before its end. "
            "Send the output to a file, or read it to its end."
        )
    places = [str(name) for name in (error.filename, error.filename2) if name is not None]
    if not places and out is not None:
        places = [f"writing to {out} or to standard output"]
    # where the system gave no number, the text is all there is
    what = error.strerror or str(error) or type(error).__name__
    where = f" ({', '.join(places)})" if places else ""
    remedy = _REMEDIES.get(error.errno or 0, "Check that place and run the same command again.")
    return f"{what}{where}. {remedy}"


def _fail(command: ModuleType, text: str) -> int:
    """``FAILED`` is the status of a command whose 1 says something else."""
    with contextlib.suppress(OSError):  # nobody may be listening there either
        print(f"error: {text}", file=sys.stderr)
    return int(getattr(command, "FAILED", 1))


def _drop_unwritable_output() -> None:
    """What cannot be written must not raise again when Python ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
