"""``python -m heatnet_ros export``: a training run -> a model folder that the node runs.

Needs the training extra (torch, onnx), which is imported only when the command runs.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from heatnet_ros.errors import ConfigError
from heatnet_ros.estimators.yolo import SIZE_STEP

_NEEDED = ("torch", "onnx", "openvino", "onnxruntime")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.add_argument("--run", required=True, type=Path, help="folder of a training run")
    parser.add_argument("--out", required=True, type=Path, help="model folder to write or replace")
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16"),
        default="fp32",
        help="arithmetic of the graph; fp16 is for GPUs (fp32)",
    )
    parser.add_argument(
        "--weights",
        choices=("fp16", "fp32"),
        default="fp16",
        help="how weights are stored; fp16 halves the file, its cost is measured (fp16)",
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="BOP_FOLDER",
        help="check on crops of these real images too, for instance data/lmo",
    )
    parser.add_argument("--split", default="test", help="split of --images (test)")
    parser.add_argument(
        "--input-size",
        type=parse_input_size,
        metavar="WxH",
        help="a detector's input, multiples of 32, instead of the training's: a larger one finds "
        "smaller objects and takes more time",
    )
    parser.add_argument(
        "--samples",
        type=parse_count,
        default=0,
        metavar="N",
        help="keep N of the compared inputs as calibration.npz in the model folder: TensorRT "
        "compares its precisions on them and calibrates INT8 (0: none; 16 are 1 to 4 MB)",
    )


def parse_count(text: str) -> int:
    """``16`` -> 16. Raises argparse's error unless it is a whole number of 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of 0 or more, got '{text}'")
    return int(text)


def parse_input_size(text: str) -> tuple[int, int]:
    """``416x320`` -> (height, width). Raises argparse's error unless both are multiples of 32."""
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected WIDTHxHEIGHT such as 416x320, got '{text}'"
        ) from None
    if min(width, height) < SIZE_STEP or width % SIZE_STEP or height % SIZE_STEP:
        raise argparse.ArgumentTypeError(
            f"width and height must be multiples of {SIZE_STEP}, got '{text}'"
        )
    return height, width


def run(args: argparse.Namespace) -> int:
    """Export. Raises ConfigError without the training extra, else what ``training.export`` does."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"export needs {', '.join(missing)}, which the run time does without and which is not "
            "installed. Install the training extra: pip install 'heatnet_ros[train]'."
        )
    from heatnet_ros.training.export import ExportOptions, export
    from heatnet_ros.training.real_samples import RealImages

    images = RealImages(args.images, args.split) if args.images is not None else None
    options = ExportOptions(args.precision, args.weights, images, args.input_size, args.samples)
    export(args.run, args.out, options)
    return 0
