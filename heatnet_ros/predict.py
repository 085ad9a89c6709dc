"""``python -m heatnet_ros predict``: images -> overlays, poses.json and a BOP results file."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from heatnet_ros.bags.choice import Wanted, add_topic_arguments
from heatnet_ros.bags.reader import is_bag
from heatnet_ros.bags.sample import find_recording
from heatnet_ros.checks.depth import PLAUSIBLE_M
from heatnet_ros.config import PipelineConfig
from heatnet_ros.datasets.bop import object_id, write_results
from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.evaluate import ImageTruth, Scorer
from heatnet_ros.evaluation_models import EvaluationModels
from heatnet_ros.evaluation_report import build_report, format_table
from heatnet_ros.files import write_json
from heatnet_ros.image_inputs import add_calibration_arguments, check_depth_scale, list_file_inputs
from heatnet_ros.objects import ObjectLibrary
from heatnet_ros.params_file import load_known_params
from heatnet_ros.pipeline import Pipeline, load_pipeline
from heatnet_ros.predict_bag import list_bag_inputs
from heatnet_ros.predict_inputs import InputSet, list_bop_inputs
from heatnet_ros.prediction import (
    Prediction,
    describe_prediction,
    list_bop_results,
    write_overlay,
)
from heatnet_ros.progress import Progress
from heatnet_ros.resources import find_resource
from heatnet_ros.ros.node_config import NodeConfig
from heatnet_ros.types import DepthF32

PipelineLoader = Callable[[PipelineConfig], Pipeline]
# of so few images every pose is printed
LISTED_IMAGES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.add_argument(
        "input",
        type=Path,
        metavar="INPUT",
        help="an image; a folder of images (or with rgb/ and depth/ matched by name); a BOP scene "
        "(lmo/test/000002) or split (lmo/test), with intrinsics and truth from it; a bag "
        "(lab.mcap, .db3, .bag or a bag's folder; `sample` is the one that ships)",
    )
    parser.add_argument("--params", required=True, help="the node's parameter file")
    parser.add_argument("--out", type=Path, default=Path("out/predict"), help="folder to write")
    parser.add_argument("--depth", type=Path, help="depth image of a single INPUT image")
    add_calibration_arguments(parser)
    parser.add_argument("--targets", type=Path, help="BOP targets file: only its images")
    parser.add_argument("--limit", type=int, help="only the first N images")
    add_topic_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(args: argparse.Namespace, load: PipelineLoader = load_pipeline) -> int:
    """Run the subcommand. Raises HeatnetError with file, expected, got and remedy."""
    params_file = find_resource(args.params, "Parameter file")
    node_config, config, unknown = load_known_params(params_file)
    for name, hint in unknown.items():
        print(f"note: {params_file}: '{name}' is unknown and ignored. {hint}", file=sys.stderr)
    inputs = _list_inputs(args, node_config)
    pipeline = load(config)
    obj_ids = number_objects(pipeline.library, inputs)
    with_depth = sum(image.has_depth for image in inputs.images)
    if not args.json:
        engines = ", ".join(f"{role}: {engine}" for role, engine in pipeline.engines.items())
        print(f"{len(inputs.images)} images, {with_depth} with depth; {engines}", flush=True)
    for note in _describe_lacks(pipeline, with_depth):
        print(f"note: {note}", file=sys.stderr)
    pipeline.warm_up(with_depth=with_depth > 0)
    models = EvaluationModels(pipeline.library, inputs.folder, obj_ids)
    scorer = Scorer(pipeline.library.objects, models.load)
    predictions, failures = _predict_all(pipeline, inputs, args.out, scorer)
    times_s = [prediction.total_s for prediction in predictions]
    summary: dict[str, Any] = {
        "images": len(predictions),
        "images_with_depth": with_depth,
        "failures": failures,
        "poses": sum(len(p.result.poses) for p in predictions),
        "rejected": sum(len(p.result.rejected) for p in predictions),
        "median_time_s": float(np.median(times_s)),
        "engines": pipeline.engines,
    }
    evaluation = scorer.summarize()
    if inputs.has_truth:
        summary["score"] = build_report(evaluation)
    document = {
        "params_file": str(args.params),
        "objects_file": str(pipeline.library.path),
        "bop_obj_ids": obj_ids,
        "summary": summary,
        "predictions": [describe_prediction(p) for p in predictions],
    }
    write_json(args.out / "poses.json", document)
    write_results(args.out / results_name(inputs), list_bop_results(predictions, obj_ids))
    if args.json:
        print(json.dumps(summary, indent=1, allow_nan=False))
    else:
        if inputs.has_truth:
            print(format_table(evaluation))
        _print_summary(summary, predictions, args.out)
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _print_summary(
    summary: Mapping[str, Any], predictions: Sequence[Prediction], out: Path
) -> None:
    reasons = Counter(str(r.reason) for p in predictions for r in p.result.rejected)
    why = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    if len(predictions) <= LISTED_IMAGES:
        for prediction in predictions:
            for pose in prediction.result.poses:
                x, y, z = pose.T_camera_object[:3, 3]
                print(
                    f"  {prediction.image.name}: {pose.object_id} at {x:.3f}, {y:.3f}, {z:.3f} m "
                    f"(camera), score {pose.score:.2f}"
                )
    print(
        f"{summary['poses']} poses, {summary['rejected']} boxes rejected"
        f"{f' ({why})' if why else ''}, "
        f"{summary['median_time_s'] * 1e3:.0f} ms an image (median); written to {out}"
    )


def _describe_lacks(pipeline: Pipeline, with_depth: int) -> list[str]:
    """What there is not and the user may expect."""
    notes = []
    if pipeline.needs_depth and not with_depth:
        notes.append(
            "the network takes depth and no image has any, so there will be no pose. Give --depth "
            "FILE (aligned to the colour image; in a folder depth/ beside rgb/), or train a "
            "network without depth for these objects (onboard --rgb)"
        )
    models = pipeline.library.objects.values()
    lacking = [m for m in models if m.mesh_path is None or not m.mesh_path.exists()]
    if lacking:
        first = lacking[0].mesh_path
        notes.append(
            f"{len(lacking)} of {len(models)} objects have no mesh here"
            + (f" (for instance {first} is not there)" if first is not None else "")
            + ": boxes are drawn instead of outlines"
        )
    return notes


def number_objects(library: ObjectLibrary, inputs: InputSet) -> dict[str, int]:
    """BOP ids of the library's objects; without a data set their places in the library, from 1.

    Raises DataError when an object cannot be of this data set.
    """
    if inputs.dataset:
        return {
            name: object_id(name, inputs.dataset, inputs.object_names) for name in library.objects
        }
    return {name: place for place, name in enumerate(library.objects, start=1)}


def _list_inputs(args: argparse.Namespace, node_config: NodeConfig) -> InputSet:
    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit: expected 1 or more, got {args.limit}.")
    check_depth_scale(args.depth_scale)
    path = find_recording(args.input)
    if is_bag(path):
        recorded = _list_bag(path, args, node_config)
        return replace(recorded, images=recorded.images[: args.limit])
    inputs = list_bop_inputs(args.input, args.targets)
    if inputs is None:
        if args.targets is not None:
            raise ConfigError(f"--targets needs a BOP scene or split as input, got {args.input}.")
        inputs = list_file_inputs(args.input, args.depth, args.camera, args.depth_scale)
    elif args.camera is not None or args.depth is not None:
        raise ConfigError(
            f"{args.input} is a BOP data set with its own calibration and depth. Leave out --camera"
            " and --depth."
        )
    return replace(inputs, images=inputs.images[: args.limit])


def _list_bag(path: Path, args: argparse.Namespace, node_config: NodeConfig) -> InputSet:
    if args.camera is not None or args.depth is not None or args.targets is not None:
        raise ConfigError(
            f"{path} is a bag with its own calibration and depth. Leave out --camera, --depth and "
            "--targets; --depth-topic and its like choose among the bag's topics."
        )
    wanted = Wanted(args.color_topic, args.info_topic, args.depth_topic)
    return list_bag_inputs(path, wanted, node_config)


def _predict_all(
    pipeline: Pipeline, inputs: InputSet, out: Path, scorer: Scorer
) -> tuple[list[Prediction], list[str]]:
    """Run on every image; what cannot be read is reported, and the others go on.

    Raises DataError where none can be read.
    """
    overlays = out / "overlays"
    overlays.mkdir(parents=True, exist_ok=True)
    progress = Progress("predict", len(inputs.images))
    predictions: list[Prediction] = []
    failures: list[str] = []
    for image in inputs.images:
        try:
            frame = image.load_frame()
        except DataError as error:
            failures.append(str(error))
            progress.step(f"{image.name}: {error}")
            continue
        if not predictions and frame.depth_m is not None:
            _check_depth_scale(frame.depth_m, image.name)
        pipeline.reset()  # the images are no sequence: no pose is carried over
        result = pipeline.run(frame)
        write_overlay(overlays / f"{image.name}.png", frame, result, pipeline.library)
        if inputs.has_truth:
            scorer.add(result, _select(image.describe_truth(frame), pipeline.config.objects))
        predictions.append(Prediction(image, result))
        progress.step(f"{image.name}: {len(result.poses)} poses")
    if not predictions:
        others = len(failures) - 1
        raise DataError(failures[0] + (f" So it is with {others} other images." if others else ""))
    return predictions, failures


def _select(truth: ImageTruth, objects: Sequence[str]) -> ImageTruth:
    """The truth of what the parameter ``objects`` asks for (all if empty): no other is missed."""
    if not objects:
        return truth
    targets = truth.targets
    if targets is not None:
        targets = {name: count for name, count in targets.items() if name in objects}
    truths = [one for one in truth.truths if one.object_id in objects]
    return replace(truth, truths=truths, targets=targets)


def _check_depth_scale(depth_m: DepthF32, name: str) -> None:
    """Tell depth that no camera of a robot measures: the unit is wrong then."""
    seen = depth_m[np.isfinite(depth_m) & (depth_m > 0)]
    median_m = float(np.median(seen)) if len(seen) else 1.0
    low, high = PLAUSIBLE_M
    if not low <= median_m <= high:
        print(
            f"note: the median depth of {name} is {median_m:.3g} m, expected {low} to {high} m. "
            "Is --depth-scale right (metres per unit: 0.001 for millimetres)?",
            file=sys.stderr,
        )


def results_name(inputs: InputSet) -> str:
    """BOP reads method, data set and split from the file's name."""
    return f"heatnet-ros_{inputs.dataset}-{inputs.split}.csv" if inputs.dataset else "poses.csv"
