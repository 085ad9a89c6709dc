"""``python -m heatnet_ros predict``: images -> overlays, poses.json and a BOP results file."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from heatnet_ros.config import PipelineConfig
from heatnet_ros.datasets.bop import BopResult, object_id, write_results
from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.evaluate import Scorer, build_report, format_table
from heatnet_ros.objects import ObjectLibrary
from heatnet_ros.overlay import draw_poses, draw_rejections
from heatnet_ros.params_file import load_params
from heatnet_ros.pipeline import Pipeline, load_pipeline
from heatnet_ros.predict_inputs import InputImage, InputSet, list_bop_inputs, list_file_inputs
from heatnet_ros.progress import Progress
from heatnet_ros.resources import find_resource
from heatnet_ros.types import Detection, Frame, PipelineResult, PoseEstimate, Rejection

PipelineLoader = Callable[[PipelineConfig], Pipeline]


@dataclass(frozen=True)
class Prediction:
    """What one image gave."""

    image: InputImage
    result: PipelineResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.add_argument(
        "input",
        type=Path,
        metavar="INPUT",
        help="an image; a folder of images (or with rgb/ and depth/ matched by name); a BOP scene "
        "(lmo/test/000002) or split (lmo/test), with intrinsics and truth from it",
    )
    parser.add_argument("--params", required=True, help="the node's parameter file")
    parser.add_argument("--out", type=Path, default=Path("out/predict"), help="folder to write")
    parser.add_argument("--depth", type=Path, help="depth image of a single INPUT image")
    parser.add_argument(
        "--camera",
        metavar="FILE|fx,fy,cx,cy",
        help="calibration: BOP camera.json, ROS calibration YAML, or four numbers in pixels "
        "(default: camera.json beside the images)",
    )
    parser.add_argument(
        "--depth-scale",
        type=float,
        default=0.001,
        help="metres per unit of the depth images (0.001: millimetres)",
    )
    parser.add_argument("--targets", type=Path, help="BOP targets file: only its images")
    parser.add_argument("--limit", type=int, help="only the first N images")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(args: argparse.Namespace, load: PipelineLoader = load_pipeline) -> int:
    """Run the subcommand. Raises HeatnetError with file, expected, got and remedy."""
    config = load_params(find_resource(args.params, "Parameter file"))
    inputs = _list_inputs(args)
    pipeline = load(config)
    obj_ids = number_objects(pipeline.library, inputs.dataset)
    with_depth = sum(image.has_depth for image in inputs.images)
    if not args.json:
        engines = ", ".join(f"{role}: {engine}" for role, engine in pipeline.engines.items())
        print(f"{len(inputs.images)} images, {with_depth} with depth; {engines}", flush=True)
    pipeline.warm_up(with_depth=with_depth > 0)
    scorer = Scorer(pipeline.library)
    predictions = _predict_all(pipeline, inputs, args.out, scorer)
    summary: dict[str, Any] = {
        "images": len(predictions),
        "images_with_depth": with_depth,
        "poses": sum(len(p.result.poses) for p in predictions),
        "rejected": sum(len(p.result.rejected) for p in predictions),
        "median_time_s": float(np.median([_total_s(p.result) for p in predictions])),
        "engines": pipeline.engines,
    }
    scores = scorer.summarize()
    if inputs.has_truth:
        summary["score"] = build_report(scores)
    document = {
        "params_file": str(args.params),
        "objects_file": str(pipeline.library.path),
        "bop_obj_ids": obj_ids,
        "summary": summary,
        "predictions": [describe_prediction(p) for p in predictions],
    }
    (args.out / "poses.json").write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    write_results(args.out / _results_name(inputs), _bop_results(predictions, obj_ids))
    if args.json:
        print(json.dumps(summary, indent=1, allow_nan=False))
        return 0
    if inputs.has_truth:
        print(format_table(scores))
    reasons = Counter(str(r.reason) for p in predictions for r in p.result.rejected)
    why = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    print(
        f"{summary['poses']} poses, {summary['rejected']} rejected{f' ({why})' if why else ''}, "
        f"{summary['median_time_s'] * 1e3:.0f} ms an image (median); written to {args.out}"
    )
    return 0


def number_objects(library: ObjectLibrary, dataset: str) -> dict[str, int]:
    """BOP ids of the library's objects; without a data set their places in the library, from 1.

    Raises DataError when an object cannot be of this data set.
    """
    if dataset:
        return {name: object_id(name, dataset) for name in library.objects}
    return {name: place for place, name in enumerate(library.objects, start=1)}


def describe_prediction(prediction: Prediction) -> dict[str, Any]:
    """JSON form of one image; units are in the key names."""
    image, result = prediction.image, prediction.result
    return {
        "image": str(image.path),
        "name": image.name,
        "scene_id": image.scene_id,
        "image_id": image.image_id,
        "has_depth": image.has_depth,
        "poses": [_describe_pose(pose) for pose in result.poses],
        "rejected": [_describe_rejection(rejection) for rejection in result.rejected],
        "timings_s": result.timings_s,
        "engines": result.engines,
    }


def _describe_pose(pose: PoseEstimate) -> dict[str, Any]:
    covariance = None if pose.covariance is None else pose.covariance.tolist()
    return {
        "object": pose.object_id,
        "instance": pose.instance,
        "T_camera_object_m": pose.T_camera_object.tolist(),
        "score": pose.score,
        "covariance_m_rad": covariance,
        "inlier_ratio": pose.inlier_ratio,
        "reprojection_crop_px": pose.reprojection_px,
        "depth_error_m": pose.depth_error_m,
        "source": pose.source,
        "detection": _describe_detection(pose.detection),
    }


def _describe_rejection(rejection: Rejection) -> dict[str, Any]:
    return {
        "object": rejection.object_id,
        "reason": rejection.reason.value,
        "detail": rejection.detail,
        "detection": _describe_detection(rejection.detection),
    }


def _describe_detection(detection: Detection | None) -> dict[str, Any] | None:
    if detection is None:
        return None
    return {"bbox_xyxy_px": list(detection.bbox_xyxy_px), "score": detection.score}


def _list_inputs(args: argparse.Namespace) -> InputSet:
    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit: expected 1 or more, got {args.limit}.")
    if not args.depth_scale > 0:
        raise ConfigError(f"--depth-scale: expected metres per unit > 0, got {args.depth_scale}.")
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
    return InputSet(inputs.images[: args.limit], inputs.dataset, inputs.split, inputs.has_truth)


def _predict_all(
    pipeline: Pipeline, inputs: InputSet, out: Path, scorer: Scorer
) -> list[Prediction]:
    overlays = out / "overlays"
    overlays.mkdir(parents=True, exist_ok=True)
    progress = Progress("predict", len(inputs.images))
    predictions = []
    for image in inputs.images:
        frame = image.load_frame()
        pipeline.reset()  # the images are no sequence: no pose is carried over
        result = pipeline.run(frame)
        _write_overlay(overlays / f"{image.name}.png", frame, result, pipeline.library)
        scorer.add(result, image.truths, frame.K)
        predictions.append(Prediction(image, result))
        progress.step(f"{image.name}: {len(result.poses)} poses")
    return predictions


def _write_overlay(
    path: Path, frame: Frame, result: PipelineResult, library: ObjectLibrary
) -> None:
    drawn = draw_rejections(frame.rgb, result.rejected)
    drawn = draw_poses(drawn, frame.K, frame.distortion, result.poses, library)
    if not cv2.imwrite(str(path), np.ascontiguousarray(drawn[:, :, ::-1])):
        raise DataError(f"Overlay {path} cannot be written. Check the folder and the disk space.")


def _bop_results(predictions: list[Prediction], obj_ids: dict[str, int]) -> list[BopResult]:
    return [
        BopResult(
            prediction.image.scene_id,
            prediction.image.image_id,
            obj_ids[pose.object_id],
            pose.score,
            pose.T_camera_object,
            _total_s(prediction.result),
        )
        for prediction in predictions
        for pose in prediction.result.poses
    ]


def _total_s(result: PipelineResult) -> float:
    return sum(result.timings_s.values())


def _results_name(inputs: InputSet) -> str:
    """BOP reads method, data set and split from the file's name."""
    return f"heatnet-ros_{inputs.dataset}-{inputs.split}.csv" if inputs.dataset else "poses.csv"
