"""The files of HeatNet's Tables 2 to 4: a training file per cell, parameter files to evaluate.

``python -m heatnet_ros.training.published`` writes config/train/published/*.yaml and
config/pose_published_*.yaml again; never edit them by hand. The head of a training file has all
commands from the data set to the cell's number.

From the paper: YOLOv10m; RGB and RGB-D networks of one ResNet-18 per stream; 50 keypoints, FPS or
CPS; 256 pixel crops around the detector's boxes; targets with sigma 2.0; focal loss; Adam with
learning rate 1e-4, batch 16, 30 epochs (Table 1); ReLU, SiLU, Mish; no schedule, OneCycle
(cosine), polynomial (quadratic); 90 % of LINEMOD to train, 10 % to test. One network for all 13
objects: the paper speaks of one model throughout and gives no times thirteen.

Left open by the paper's text, and taken from the authors' published notebooks: OneCycle's highest
rate 5e-4 with 10 % warm-up, first rate a tenth, last one 1e-4 of the first; a fifth of the training
images held out as the validation set of Tables 2 and 3 (here ``val-18``; Table 4 reports on
``test-10``); crops exactly the detector's box; 50 epochs of batch 16 at 640 pixels for the
detector.

Left open by both, or different here: no augmentation of the crops; crops stay square instead of
being stretched; symmetric objects are shown in their canonical pose; each object has a last
convolution of its own; float32; seed 0; no clipping of gradients (the detector's at 10, as
ultralytics does). The decoder and the focal loss are ours: the notebooks have three convolutions
and bilinear upsampling, their RGB-D streams stop at ResNet's layer3 and meet once, and their loss
has soft positives (weighted by the target) with alpha 2 and gamma 4, where ours is CenterNet's.
The detector starts from random weights: COCO's come as a file that runs code when it is read,
which this package refuses.

Table 3's schedules were probably others than those generated here, which run their whole course:
the notebooks give OneCycle and polynomial decay len(loader) steps an epoch and then step them once
an epoch. So OneCycle went 30 of some 21,000 steps, its rate staying near the first one (5e-5), and
the polynomial hardly decayed. Also, torch's OneCycleLR cycles Adam's beta1 (0.95 to 0.85 and back)
unless told not to; here it stays 0.9.

Evaluated as published: a heatmap's highest pixel, all keypoints, PnP from them alone (depth is the
RGB-D network's input and nothing else), no refiner, no gate. Different here: RANSAC's threshold is
6 pixels of the crop, in the notebooks 4 of the image; mAP counts boxes of a score above 0.25.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import yaml

from heatnet_ros.files import make_folder, write_whole
from heatnet_ros.training.augment import AugmentConfig

CONFIG = Path("config")
TRAINING = Path("train/published")  # in the folder of the configuration
FOLDER = CONFIG / TRAINING
DATASET = "data/Linemod_preprocessed"
IMAGENET = "data/resnet18-f37072fd.pth"
# where `download lm --out data` puts them: objects get LINEMOD's names from the folder lm
MODELS = "data/lm/models"
NUMBERS = "01,02,04,05,06,08,09,10,11,12,13,14,15"
DETECTOR = "models/published_yolov10m"
SCHEDULES: dict[str, dict[str, Any]] = {
    "none": {"schedule": "none", "learning_rate": 1e-4},
    "onecycle": {
        "schedule": "onecycle", "learning_rate": 5e-4, "warmup": 0.1, "start_div": 10.0,
        "final_div": 1e4,
    },
    "polynomial": {"schedule": "polynomial", "learning_rate": 1e-4},
}  # fmt: skip
ACTIVATIONS = ("relu", "silu", "mish")
# the paper's mean accuracy of each cell, per cent
_TABLE_3 = {
    "none": (88.19, 82.86, 88.32),
    "onecycle": (90.14, 91.08, 91.92),
    "polynomial": (87.40, 86.91, 86.99),
}


def library_of(sampling: str) -> str:
    """The object library with the keypoints of ``fps`` or ``cps``."""
    return f"config/objects/linemod_{sampling}.yaml"


def variant_of(rgbd: bool, sampling: str = "fps") -> str:
    """What tells parameter files and model folders apart: ``rgb``, ``rgb_cps`` or ``rgbd``."""
    return ("rgbd" if rgbd else "rgb") + ("_cps" if sampling == "cps" else "")


def model_of(variant: str) -> str:
    """The model folder of a variant: each of its cells is exported to it, then evaluated."""
    return f"models/published_{variant}"


def params_of(variant: str) -> str:
    """Name of a variant's parameter file, in the folder of the configuration."""
    return f"pose_published_{variant}.yaml"


def detector_file() -> dict[str, Any]:
    """YOLOv10m (section 3.3)."""
    return {
        "network": "yolo",
        "objects_file": library_of("fps"),
        "data": DATASET,
        "split": "train-72",
        "size": "m",
        "frame_px": 640,
        "epochs": 50.0,
        "batch": 16,
        "clip": 10.0,
        "validation_shards": 1,
        "workers": 4,
    }


def heatnet_file(
    rgbd: bool, sampling: str = "fps", schedule: str = "none", activation: str = "relu"
) -> dict[str, Any]:
    """HeatNet as in Table 1, with what a cell changes."""
    off = {field.name: 0.0 for field in dataclasses.fields(AugmentConfig)}
    return {
        "network": "heatnet",
        "objects_file": library_of(sampling),
        "data": DATASET,
        "split": "train-72",
        "detector": DETECTOR,
        "cache_px": 256,
        "cache_margin": 1.0,
        "margin": 1.0,
        "preset": "full",
        "rgbd": rgbd,
        "activation": activation,
        "epochs": 30.0,
        "batch": 16,
        "optimizer": "adam",
        "weight_decay": 0.0,
        "clip": 0.0,
        **SCHEDULES[schedule],
        "precision": "fp32",
        "init": IMAGENET,
        "validation_shards": 1,
        "workers": 4,
        "augment": off,
    }


def params_file(rgbd: bool, sampling: str = "fps") -> dict[str, Any]:
    """The pipeline as published: the node's own solve, refiner and gate are out of the way.

    The gate's limits are the ends of their ranges: every pose counts, right or wrong.
    """
    return {
        "objects_file": library_of(sampling),
        "engine": {"precision": "fp32"},
        "detector": {"model": DETECTOR},
        "estimator": {
            "model": model_of(variant_of(rgbd, sampling)),
            "decode": "argmax",
            "min_confidence": 0.0,
            "use_depth": False,
        },
        "refiner": {"name": "none"},
        "gate": {
            "min_inliers": 4,
            "max_reprojection_px": 64.0,
            "max_depth_error": 10.0,
            "min_score": 0.0,
        },
    }


def list_params() -> dict[str, str]:
    """File name -> text of every parameter file."""
    head = (
        "# HeatNet as published: for the commands in config/train/published/*.yaml, not for a "
        "robot (no gate).\n"
        "# Written by `python -m heatnet_ros.training.published`.\n"
    )
    files = {}
    for rgbd, sampling in ((False, "fps"), (False, "cps"), (True, "fps")):
        content = {"/**": {"ros__parameters": params_file(rgbd, sampling)}}
        text = head + yaml.safe_dump(content, sort_keys=False)
        files[params_of(variant_of(rgbd, sampling))] = text
    return files


def list_cells() -> dict[str, tuple[str, dict[str, Any]]]:
    """File name -> (what the paper reports for it, the training file's content)."""
    cells: dict[str, tuple[str, dict[str, Any]]] = {
        "table2_yolov10m": ("Table 2, detection: mAP@50:95 0.974 on val-18", detector_file()),
        "table2_rgb_cps": (
            "Table 2, CPS: mean ADD(-S) accuracy 83.34 % on val-18",
            heatnet_file(False, "cps"),
        ),
        "table2_rgb_fps": (
            "Table 2, FPS: mean ADD(-S) accuracy 86.70 % on val-18",
            heatnet_file(False),
        ),
    }
    for schedule, means in _TABLE_3.items():
        for activation, mean in zip(ACTIVATIONS, means, strict=True):
            cells[f"table3_{schedule}_{activation}"] = (
                f"Table 3, RGB-D, schedule {schedule}, {activation}: mean ADD(-S) accuracy "
                f"{mean:.2f} % on val-18",
                heatnet_file(True, "fps", schedule, activation),
            )
    cells["table4_rgb_baseline"] = (
        "Table 4, baseline: mean ADD(-S) accuracy 84.50 % on test-10; the run of table2_rgb_fps",
        heatnet_file(False),
    )
    cells["table4_rgbd_onecycle_relu"] = (
        "Table 4, ReLU + OneCycleLR: mean ADD(-S) accuracy 92.41 % on test-10; the run of "
        "table3_onecycle_relu",
        heatnet_file(True, "fps", "onecycle", "relu"),
    )
    return cells


def format_cell(name: str, reported: str, values: dict[str, Any]) -> str:
    """The text of a training file: what it reproduces, how, and its keys."""
    sampling = "cps" if "_cps" in values["objects_file"] else "fps"
    lines = [
        f"HeatNet as published. {reported}.",
        "Written by `python -m heatnet_ros.training.published`, which says what the paper leaves",
        "open and what was chosen; edit `data` at most.",
        f"It needs {DATASET}, or BOP's edition with every image (then write data: data/lm",
        "below, and --dataset data/lm), LINEMOD's CAD models and their object library. From BOP:",
        "  python -m heatnet_ros download lm --parts base,models,test_all --out data",
        f"brings images and models; `--parts models` alone brings {MODELS}. The library:",
        f"  python -m heatnet_ros keypoints {MODELS}/obj_0000{{{NUMBERS}}}.ply \\",
        f"      --unit mm --count 50 --method {sampling} \\",
        f"      --bop-models-info {MODELS}/models_info.json \\",
        f"      --name linemod_{sampling} --out {values['objects_file']}",
    ]
    lines += _run_lines(name, sampling, values)
    return "".join(f"# {line}\n" for line in lines) + yaml.safe_dump(values, sort_keys=False)


def _run_lines(name: str, sampling: str, values: dict[str, Any]) -> list[str]:
    """The head's commands from the training to the cell's number."""
    train = f"  python -m heatnet_ros train --config {FOLDER}/{name}.yaml --out runs/{name}"
    export = f"  python -m heatnet_ros export --run runs/{name} --weights fp32 --out"
    if values["network"] == "yolo":
        return [
            "Then:",
            train,
            f"{export} {DETECTOR}",
            "evaluate runs both networks, so export table2_rgb_fps before; its first table has the",
            "mAP of boxes scored above 0.25:",
            *_evaluate_lines(name, variant_of(False)),
        ]
    variant = variant_of(values["rgbd"], sampling)
    return [
        f"And the detector in {DETECTOR} (from table2_yolov10m), and torchvision's ImageNet",
        f"weights in {IMAGENET} (https://download.pytorch.org/models/{Path(IMAGENET).name}).",
        "Then (the cell's number is the mean of ADD(-S) 0.1d in evaluate's first table):",
        train,
        f"{export} {model_of(variant)}",
        *_evaluate_lines(name, variant),
    ]


def _evaluate_lines(name: str, variant: str) -> list[str]:
    split = "test-10" if name.startswith("table4") else "val-18"
    return [
        f"  python -m heatnet_ros evaluate --dataset {DATASET} --split {split} \\",
        f"      --params {CONFIG}/{params_of(variant)} --json runs/{name}/evaluation.json",
    ]


def main(arguments: list[str] | None = None) -> int:
    """Write every file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=CONFIG, help=f"folder of the configuration ({CONFIG})"
    )
    args = parser.parse_args(arguments)
    cells = {
        str(TRAINING / f"{name}.yaml"): format_cell(name, reported, values)
        for name, (reported, values) in list_cells().items()
    }
    files = cells | list_params()
    for name, text in files.items():
        make_folder((args.out / name).parent, "Give another --out.")
        write_whole(args.out / name, text)
    print(f"{len(files)} files in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
