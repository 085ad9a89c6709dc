"""``python -m heatnet_ros evaluate``: the node's own pipeline on a data set with ground truth."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from heatnet_ros import __version__
from heatnet_ros.config import PipelineConfig
from heatnet_ros.datasets.bop import object_id, write_results
from heatnet_ros.detection_metrics import DetectionScorer, TrueBox
from heatnet_ros.errors import ConfigError, DataError, EngineError
from heatnet_ros.evaluate import Evaluation, ImageTruth, Scorer
from heatnet_ros.evaluation_models import EvaluationModels
from heatnet_ros.evaluation_report import build_report, format_paper_table, format_table
from heatnet_ros.files import write_json
from heatnet_ros.manifest import load_manifest
from heatnet_ros.mesh import Mesh
from heatnet_ros.objects import ObjectLibrary
from heatnet_ros.params_file import load_params
from heatnet_ros.pipeline import Pipeline, load_pipeline
from heatnet_ros.predict import results_name
from heatnet_ros.predict_inputs import InputSet, list_split_inputs
from heatnet_ros.prediction import (
    Prediction,
    PredictionLog,
    list_bop_results,
    write_overlay,
)
from heatnet_ros.progress import Progress
from heatnet_ros.rendering.rasterizer import Rasterizer
from heatnet_ros.resources import find_resource
from heatnet_ros.types import DepthF32, Detection, FloatArray

LOG_FILE = "predictions.jsonl"
RESULTS_FILE = "evaluation.json"
# LINEMOD annotates one object in each image, though others are in it
_ONE_OBJECT_PER_IMAGE = "lm"


@dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """A pipeline, what it can find, its name, and its network files: role -> sha256."""

    pipeline: Pipeline
    objects: tuple[str, ...]
    name: str
    networks: Mapping[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.add_argument(
        "--dataset",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="a BOP data set such as lmo, or Linemod_preprocessed",
    )
    parser.add_argument("--split", default="test", help="its split (default: test)")
    parser.add_argument("--params", required=True, help="the node's parameter file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to FILE")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="keep overlays, results and a BOP results file here; run again, an interrupted "
        "evaluation continues",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images")


def load_model(config: PipelineConfig) -> EvaluatedModel:
    """Load the pipeline of a parameter file. Raises as ``load_pipeline`` does."""
    pipeline = load_pipeline(config)
    detector, estimator = (
        load_manifest(find_resource(folder, "Model"))
        for folder in (config.detector.model, config.estimator.model)
    )
    networks = {"detector": detector.onnx_sha256, "estimator": estimator.onnx_sha256}
    name = f"{detector.name} + {estimator.name}"
    return EvaluatedModel(pipeline, detector.objects, name, networks)


def run(
    args: argparse.Namespace, load: Callable[[PipelineConfig], EvaluatedModel] = load_model
) -> int:
    """Run the subcommand. Raises HeatnetError with file, expected, got and remedy."""
    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit: expected 1 or more, got {args.limit}.")
    config = load_params(find_resource(args.params, "Parameter file"))
    inputs = list_split_inputs(args.dataset, args.split)
    inputs = dataclasses.replace(inputs, images=inputs.images[: args.limit])
    model = load(config)
    obj_ids = _number_objects(model.pipeline.library, inputs)
    log = None
    if args.out is not None:
        (args.out / "overlays").mkdir(parents=True, exist_ok=True)
        log = PredictionLog(args.out / LOG_FILE, _describe_run(model, config, inputs))
    models = EvaluationModels(model.pipeline.library, inputs.folder, obj_ids)
    with _Renderer() as renderer:
        problem = renderer.check() if any(image.has_depth for image in inputs.images) else ""
        scorer = Scorer(model.objects, models.load, None if problem else renderer.render)
        predictions, maps = _predict_all(model, inputs, scorer, log, args.out)
        evaluation = scorer.summarize()
    if not evaluation.scores and not evaluation.not_in_model:
        raise DataError(
            f"Split '{args.split}' of {args.dataset} has no target. Check the data set."
        )
    notes = [*models.notes, *_describe_conditions(model, inputs, problem)]
    document = _build_document(model, inputs, evaluation, predictions, maps)
    document["notes"] += notes
    if args.json is not None:
        write_json(args.json, document)
    if args.out is not None:
        write_json(args.out / RESULTS_FILE, document)
        write_results(args.out / results_name(inputs), list_bop_results(predictions, obj_ids))
    print(f"{model.name} on {inputs.dataset} {inputs.split}, {len(predictions)} images\n")
    print(format_paper_table(evaluation, maps) + "\n")
    print(format_table(evaluation))
    print("\n".join([*notes, _describe_ar(document)]))
    return 0


def _predict_all(
    model: EvaluatedModel,
    inputs: InputSet,
    scorer: Scorer,
    log: PredictionLog | None,
    out: Path | None,
) -> tuple[list[Prediction], dict[str, float]]:
    """Every image's prediction, those of the log first used; and the detector's mAP by object."""
    done = {} if log is None else {i.name: log.find(i) for i in inputs.images}
    missing = sum(done.get(image.name) is None for image in inputs.images)
    pipeline, detections = model.pipeline, DetectionScorer()
    if missing:
        pipeline.warm_up(with_depth=any(image.has_depth for image in inputs.images))
    if missing < len(inputs.images):
        print(f"{len(inputs.images) - missing} of {len(inputs.images)} images are done already")
    progress = Progress("evaluate", missing)
    predictions = []
    for image in inputs.images:
        frame = image.load_frame()
        result = done.get(image.name)
        if result is None:
            pipeline.reset()  # the images are no sequence: no pose is carried over
            result = pipeline.run(frame)
            if out is not None:
                overlay = out / "overlays" / f"{image.name}.png"
                write_overlay(overlay, frame, result, pipeline.library)
            if log is not None:
                log.append(Prediction(image, result))
            progress.step(f"{image.name}: {len(result.poses)} poses")
        predictions.append(Prediction(image, result))
        truth = image.describe_truth(frame)
        scorer.add(result, truth)
        _add_detections(detections, result.detections, truth, model.objects, inputs.dataset)
    return predictions, detections.summarize()


def _add_detections(
    scorer: DetectionScorer,
    detections: Sequence[Detection],
    truth: ImageTruth,
    known: Sequence[str],
    dataset: str,
) -> None:
    boxes = []
    for pose in truth.truths:
        if pose.object_id in known and pose.bbox_xyxy_px is not None:
            x0, y0, x1, y1 = pose.bbox_xyxy_px
            # first and last pixel -> edges, half a pixel further out
            edges = (x0 - 0.5, y0 - 0.5, x1 + 0.5, y1 + 0.5)
            boxes.append(TrueBox(pose.object_id, edges, ignored=not pose.is_target))
    if dataset == _ONE_OBJECT_PER_IMAGE:
        annotated = {box.object_id for box in boxes}
        detections = [d for d in detections if d.object_id in annotated]
    scorer.add(detections, boxes)


class _Renderer:
    """Depth of single meshes for VSD; one rasterizer at a time, of the size last asked for."""

    def __init__(self) -> None:
        self._rasterizer: Rasterizer | None = None

    def __enter__(self) -> _Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._rasterizer is not None:
            self._rasterizer.release()

    def check(self) -> str:
        """Why nothing can be drawn on this machine, else an empty string."""
        try:
            self._rasterizer = Rasterizer((64, 48))
        except EngineError as error:
            return str(error)
        return ""

    def render(
        self, mesh: Mesh, K: FloatArray, T_camera_object: FloatArray, size_wh: tuple[int, int]
    ) -> DepthF32:
        if self._rasterizer is None or self._rasterizer.size_wh != size_wh:
            self.__exit__()
            self._rasterizer = Rasterizer(size_wh)
        return self._rasterizer.render_depth(mesh, K, T_camera_object)


def _number_objects(library: ObjectLibrary, inputs: InputSet) -> dict[str, int]:
    """Ids in the data set of those objects of the library that it can have."""
    obj_ids = {}
    for name in library.objects:
        try:
            obj_ids[name] = object_id(name, inputs.dataset, inputs.object_names)
        except DataError:
            continue  # an object of another set: the networks may know more than is asked for here
    return obj_ids


def _describe_run(
    model: EvaluatedModel, config: PipelineConfig, inputs: InputSet
) -> dict[str, Any]:
    """What an image's result depends on; results of another run must not be mixed in."""
    options = json.dumps(asdict(config), sort_keys=True)
    library = model.pipeline.library
    return {
        "heatnet_ros": __version__,
        "dataset": inputs.dataset,
        "split": inputs.split,
        "networks": dict(model.networks),
        "options_sha256": hashlib.sha256(options.encode()).hexdigest(),
        "objects_hash": library.keypoints_hash(list(library.objects)),
    }


def _describe_conditions(model: EvaluatedModel, inputs: InputSet, render_problem: str) -> list[str]:
    notes = []
    without = sum(not image.has_depth for image in inputs.images)
    if model.pipeline.needs_depth and without:
        notes.append(
            f"The network takes depth, {without} of {len(inputs.images)} images have none: their "
            "targets are failures. Use RGB parameters for them."
        )
    if render_problem:
        notes.append(f"No VSD, since nothing can be rendered: {render_problem}")
    threshold = model.pipeline.config.detector.score_threshold
    notes.append(
        f"The mAP is of the detections that the node uses (score from {threshold:g}); the usual "
        "one counts all."
    )
    if inputs.dataset == _ONE_OBJECT_PER_IMAGE:
        notes.append("Only detections of objects annotated in their image count for the mAP.")
    return notes


def _describe_ar(document: Mapping[str, Any]) -> str:
    parts = {"AR": document["ar"], **{f"AR {k}": v for k, v in document["ar_parts"].items()}}
    if document["ar"] != document["ar_in_model"]:
        parts["AR of the model's objects"] = document["ar_in_model"]
    return "  ".join(f"{k} {'-' if v is None else format(v, '.3f')}" for k, v in parts.items())


def _build_document(
    model: EvaluatedModel,
    inputs: InputSet,
    evaluation: Evaluation,
    predictions: Sequence[Prediction],
    maps: Mapping[str, float],
) -> dict[str, Any]:
    report = build_report(evaluation)
    for name, entry in report["objects"].items():
        entry["map"] = maps.get(name)
    known = [maps[name] for name in evaluation.scores if name in maps]
    unknown = len(evaluation.not_in_model) if evaluation.counts_unknown else 0
    report["mean"]["map"] = sum(known) / (len(known) + unknown) if known else None
    report["mean_in_model"]["map"] = float(np.mean(known)) if known else None
    stages: dict[str, list[float]] = defaultdict(list)
    for prediction in predictions:
        for stage, seconds in prediction.result.timings_s.items():
            stages[stage].append(seconds)
    return {
        "dataset": inputs.dataset,
        "split": inputs.split,
        "model": model.name,
        "networks_sha256": dict(model.networks),
        "engines": model.pipeline.engines,
        "images": len(predictions),
        "images_with_depth": sum(image.has_depth for image in inputs.images),
        **report,
        "median_times_s": {
            "total": float(np.median([p.total_s for p in predictions])),
            **{stage: float(np.median(values)) for stage, values in stages.items()},
        },
        "records": [asdict(record) for record in evaluation.records],
    }
