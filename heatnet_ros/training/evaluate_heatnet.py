"""Accuracy of a network on held-out crops: keypoint error and pose error by PnP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from heatnet_ros.estimators.heatnet import decode_heatmaps
from heatnet_ros.geometry import se3
from heatnet_ros.geometry.pnp import solve_pnp
from heatnet_ros.objects import ObjectLibrary
from heatnet_ros.training.crops import crop_sample
from heatnet_ros.training.heatnet import DeployedHeatNet, HeatNet

RANSAC_PX = 6.0


def evaluate_crops(
    net: HeatNet, crops: Mapping[str, Any], library: ObjectLibrary, margin: float, limit: int = 0
) -> dict[str, dict[str, float]]:
    """Per object: median keypoint error (crop pixels) and recall of ADD below 0.1 diameters.

    The pose is PnP's alone, without depth; symmetric objects are judged on surface points by ADD
    to the canonical pose, which is stricter than ADD-S. The network computes in float32 unless the
    caller's autocast says otherwise.
    """
    deployed = DeployedHeatNet(net).eval()
    names = list(library.objects)
    diameters = [library[name].diameter_m for name in names]
    count = min(limit or len(crops["object"]), len(crops["object"]))
    pixel_errors: dict[str, list[float]] = {name: [] for name in names}
    hits: dict[str, list[bool]] = {name: [] for name in names}
    rng = np.random.default_rng(0)
    for start in range(0, count, 64):
        picks = range(start, min(start + 64, count))
        samples = [
            crop_sample(
                dict(crops), i, diameters, net.config.crop_px, margin, None, rng, net.config.rgbd
            )
            for i in picks
        ]
        heatmaps, learned = _run(deployed, samples, crops["object"][list(picks)])
        points, confidence = decode_heatmaps(heatmaps, net.config.stride, "dark")
        if learned is not None:
            confidence = learned
        for row, i in enumerate(picks):
            name = names[int(crops["object"][i])]
            truth = samples[row][2]
            pixel_errors[name].append(float(np.median(np.linalg.norm(points[row] - truth, axis=1))))
            hits[name].append(
                _pose_hits(points[row], confidence[row], samples[row][3], crops, i, library[name])
            )
    net.train()
    return {
        name: {
            "crops": len(hits[name]),
            "keypoint_px": float(np.median(pixel_errors[name])) if hits[name] else float("nan"),
            "recall_add_01d": float(np.mean(hits[name])) if hits[name] else float("nan"),
        }
        for name in names
    }


def _run(
    deployed: DeployedHeatNet, samples: list[Any], index: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Heatmaps NxKxhxw and, where the network learned it, confidence NxK."""
    device = next(deployed.parameters()).device
    inputs = (
        torch.from_numpy(np.stack([s[0] for s in samples])),
        torch.from_numpy(index),
        torch.from_numpy(np.stack([s[1] for s in samples])),
    )
    with torch.no_grad():
        found = deployed(*(tensor.to(device) for tensor in inputs))
    heatmaps, confidence = found if isinstance(found, tuple) else (found, None)
    learned = None if confidence is None else confidence.float().cpu().numpy().astype(np.float64)
    return heatmaps.float().cpu().numpy(), learned


def _pose_hits(
    points: np.ndarray, confidence: np.ndarray, warp: np.ndarray, crops: Any, i: int, model: Any
) -> bool:
    cached = (points - warp[:, 2]) @ np.linalg.inv(warp[:, :2]).T
    scale = float(np.linalg.norm(warp[:, 0]))
    solution = solve_pnp(model.keypoints_m, cached, crops["K"][i], confidence, RANSAC_PX / scale)
    if solution is None:
        return False
    surface = model.surface[:, :3]
    truth = se3.transform(crops["T_camera_object"][i], surface)
    error = np.linalg.norm(se3.transform(solution.T_camera_object, surface) - truth, axis=1).mean()
    return bool(error < 0.1 * model.diameter_m)


def mean_scores(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Mean over the objects that have crops; objects count equally, as in the literature."""
    present = [entry for entry in scores.values() if entry["crops"]]
    return {
        key: float(np.mean([entry[key] for entry in present])) if present else float("nan")
        for key in ("keypoint_px", "recall_add_01d")
    }


def list_numbers(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Names and numbers for a log: the means first, then each object's."""
    rows = {"mean": mean_scores(scores), **scores}
    return {
        f"{name}_{short}": round(row[key], digits)
        for name, row in rows.items()
        for short, key, digits in (("px", "keypoint_px", 2), ("recall", "recall_add_01d", 3))
        if np.isfinite(row[key])
    }
