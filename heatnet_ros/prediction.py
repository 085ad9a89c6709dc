"""What the pipeline gave for one image: as JSON and back, as an overlay, as a BOP result.

A log of such lines lets a run over many images be interrupted and continued.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from heatnet_ros.datasets.bop import BopResult
from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.files import reporting, write_whole
from heatnet_ros.objects import ObjectLibrary
from heatnet_ros.overlay import draw_poses
from heatnet_ros.predict_inputs import InputImage
from heatnet_ros.types import (
    Detection,
    Frame,
    PipelineResult,
    PoseEstimate,
    Reason,
    Rejection,
)


@dataclass(frozen=True)
class Prediction:
    """What one image gave."""

    image: InputImage
    result: PipelineResult

    @property
    def total_s(self) -> float:
        """Seconds the pipeline took."""
        return sum(self.result.timings_s.values())


def describe_prediction(prediction: Prediction) -> dict[str, Any]:
    """JSON form of one image; units are in the key names."""
    image, result = prediction.image, prediction.result
    return {
        "image": str(image.path),
        "name": image.name,
        "scene_id": image.scene_id,
        "image_id": image.image_id,
        "stamp_ns": image.stamp_ns,
        "has_depth": image.has_depth,
        "poses": [_describe_pose(pose) for pose in result.poses],
        "rejected": [_describe_rejection(rejection) for rejection in result.rejected],
        "detections": [
            {"object": d.object_id, "bbox_xyxy_px": list(d.bbox_xyxy_px), "score": d.score}
            for d in result.detections
        ],
        "timings_s": result.timings_s,
        "engines": result.engines,
    }


def parse_result(entry: Mapping[str, Any]) -> PipelineResult:
    """The result in the JSON form of one image; keypoints are not part of it."""
    return PipelineResult(
        tuple(_parse_pose(pose) for pose in entry["poses"]),
        tuple(
            Rejection(
                r["object"],
                Reason(r["reason"]),
                r["detail"],
                _parse_detection(r["object"], r["detection"]),
            )
            for r in entry["rejected"]
        ),
        tuple(
            Detection(d["object"], tuple(d["bbox_xyxy_px"]), d["score"])
            for d in entry["detections"]
        ),
        dict(entry["timings_s"]),
        dict(entry["engines"]),
    )


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
        "crop_scale": pose.crop_scale,
        "depth_error_m": pose.depth_error_m,
        "source": pose.source,
        "detection": _describe_detection(pose.detection),
    }


def _parse_pose(entry: Mapping[str, Any]) -> PoseEstimate:
    covariance = entry["covariance_m_rad"]
    return PoseEstimate(
        entry["object"],
        np.array(entry["T_camera_object_m"], np.float64),
        entry["score"],
        entry["inlier_ratio"],
        entry["reprojection_crop_px"],
        entry["source"],
        entry["instance"],
        entry["crop_scale"],
        None if covariance is None else np.array(covariance, np.float64),
        entry["depth_error_m"],
        None,
        _parse_detection(entry["object"], entry["detection"]),
    )


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


def _parse_detection(name: str, entry: Mapping[str, Any] | None) -> Detection | None:
    if entry is None:
        return None
    return Detection(name, tuple(entry["bbox_xyxy_px"]), entry["score"])


def write_overlay(path: Path, frame: Frame, result: PipelineResult, library: ObjectLibrary) -> None:
    """Draw poses and rejections on the image. Raises DataError when it cannot be written."""
    drawn = draw_poses(
        frame.rgb, frame.K, frame.distortion, result.poses, library, rejections=result.rejected
    )
    if not cv2.imwrite(str(path), np.ascontiguousarray(drawn[:, :, ::-1])):
        raise DataError(f"Overlay {path} cannot be written. Check the folder and the disk space.")


def list_bop_results(
    predictions: Sequence[Prediction], obj_ids: Mapping[str, int]
) -> list[BopResult]:
    """Rows of a BOP results file; an object without an id is not of the data set."""
    return [
        BopResult(
            prediction.image.scene_id,
            prediction.image.image_id,
            obj_ids[pose.object_id],
            pose.score,
            pose.T_camera_object,
            prediction.total_s,
        )
        for prediction in predictions
        for pose in prediction.result.poses
        if pose.object_id in obj_ids
    ]


class PredictionLog:
    """One JSON line per image, the first line says of what: a run continues where it was stopped.

    A last line that was cut off by a kill is dropped. Raises ConfigError when the file is of
    another run, DataError when it is damaged or cannot be written.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        self._path = path
        self._results: dict[str, tuple[int, PipelineResult]] = {}
        header = json.dumps(run, sort_keys=True)
        lines = path.read_text().split("\n") if path.exists() else []
        complete = lines[:-1]  # after the last line break nothing or half a line
        if complete and complete[0] != header:
            raise ConfigError(
                f"{path} holds the results of another run (model, parameters or data differ). "
                "Give another --out folder or delete this file."
            )
        for number, line in enumerate(complete[1:], start=2):
            try:
                entry = json.loads(line)
                self._results[entry["name"]] = entry["image_bytes"], parse_result(entry)
            except (ValueError, KeyError, TypeError, DataError) as error:
                raise DataError(
                    f"{path}, line {number} is damaged: {error}. Delete the file to start again."
                ) from error
        write_whole(path, "\n".join([*(complete or [header]), ""]))

    def find(self, image: InputImage) -> PipelineResult | None:
        """The result of an image that is done, unless its file has changed since."""
        size, result = self._results.get(image.name, (None, None))
        return result if size == image.path.stat().st_size else None

    def append(self, prediction: Prediction) -> None:
        """Keep an image's result, in the file before this returns."""
        size = prediction.image.path.stat().st_size
        entry = {"image_bytes": size, **describe_prediction(prediction)}
        line = json.dumps(entry, allow_nan=False)
        with reporting(self._path), self._path.open("a") as file:
            file.write(line + "\n")
        self._results[prediction.image.name] = size, prediction.result
