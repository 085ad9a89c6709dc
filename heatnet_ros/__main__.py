"""The one command line: ``python -m heatnet_ros COMMAND``."""

from __future__ import annotations

import argparse
import importlib
import sys
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
        "find poses in images or a BOP scene without ROS; draw them and write JSON and CSV",
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
    "evaluate": Command(
        "heatnet_ros.evaluate_command",
        "measure the node's pipeline on a data set: ADD(-S), 2D projection, BOP's metrics, mAP",
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
  python -m heatnet_ros onboard bracket.ply housing.stl --name parts --budget 60m
  ros2 launch heatnet_ros pose.launch.py params_file:=config/pose_parts.yaml   (with ROS 2)

what onboard does, step by step:
  python -m heatnet_ros keypoints bracket.ply --name parts --out config/objects/parts.yaml
  python -m heatnet_ros synthesize --objects config/objects/parts.yaml --out data/parts \\
      --split train --images 4000
  python -m heatnet_ros train --config config/train/parts_heatnet.yaml --out runs/parts_heatnet
  python -m heatnet_ros export --run runs/parts_heatnet --out models/parts_heatnet
  python -m heatnet_ros evaluate --dataset data/parts --split test --params config/pose_parts.yaml

public data sets:
  python -m heatnet_ros download lmo --out data

`python -m heatnet_ros COMMAND --help` explains a command."""


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
    """Run a command and return its exit status: 0 good, 1 failed, 2 wrong usage."""
    arguments = sys.argv[1:] if arguments is None else arguments
    selected = next((word for word in arguments if word in COMMANDS), None)
    parser = build_parser(selected)
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.print_help()
        return 2
    try:
        return int(importlib.import_module(COMMANDS[args.command].module).run(args))
    except HeatnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
