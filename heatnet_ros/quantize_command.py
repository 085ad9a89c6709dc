"""``python -m heatnet_ros quantize``: a model folder -> the same network in INT8, if it bears it.

Needs the extra ``quantize`` (nncf), which is imported only when the command runs.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from heatnet_ros.errors import ConfigError

_NEEDED = ("nncf", "onnx", "openvino", "onnxruntime")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.add_argument(
        "--model", required=True, type=Path, metavar="FOLDER", help="model folder to quantize"
    )
    parser.add_argument(
        "--dataset", required=True, type=Path, metavar="FOLDER", help="images with true boxes"
    )
    parser.add_argument("--split", default="train", help="split of --dataset (train)")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FOLDER", help="model folder to write"
    )
    parser.add_argument(
        "--samples", type=int, default=300, metavar="N", help="calibration samples (300)"
    )
    parser.add_argument(
        "--objects",
        metavar="FILE",
        help="object library of the model (the one that it was trained with)",
    )
    parser.add_argument(
        "--force", action="store_true", help="write the folder even where the loss is too large"
    )


def run(args: argparse.Namespace) -> int:
    """Quantize. Raises ConfigError without the extra, else what ``training.quantize`` does."""
    if args.samples < 1:
        raise ConfigError(f"--samples: expected 1 or more, got {args.samples}.")
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"quantize needs {', '.join(missing)}, which the run time does without and which is "
            "not installed. Install it: pip install 'heatnet_ros[quantize]'."
        )
    from heatnet_ros.training.quantize import QuantizeOptions, quantize
    from heatnet_ros.training.real_samples import RealImages

    images = RealImages(args.dataset, args.split)
    quantize(args.model, args.out, QuantizeOptions(images, args.samples, args.objects, args.force))
    return 0
