"""How right the measured poses are: speed and accuracy belong into one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from heatnet_ros.bench.recording import Target
from heatnet_ros.evaluate import ADD_THRESHOLD_DIAMETERS
from heatnet_ros.metrics import add_or_adds_error_m, match_instances, recall
from heatnet_ros.objects import ObjectLibrary
from heatnet_ros.types import FloatArray, PoseEstimate


def score_poses(
    poses: Mapping[int, Sequence[PoseEstimate]],
    targets: Mapping[int, Sequence[Target]],
    library: ObjectLibrary,
) -> dict[str, Any]:
    """Entries of a run; both mappings are by stamp, and stamps without ``poses`` do not count.

    recall_add_01d: mean over the objects of the share of targets with ADD (ADD-S where symmetric)
    below 0.1 diameters, a target without a pose being wrong; None without targets. targets: their
    number. recall_by_object: object -> its recall and targets.
    """
    errors: dict[str, list[float]] = {}
    vertices: dict[str, FloatArray] = {}
    for stamp_ns, found in poses.items():
        wanted = targets.get(stamp_ns, ())
        for name in dict.fromkeys(target.object_id for target in wanted):
            if name not in vertices:
                vertices[name] = _load_vertices(library, name)
            mine = [pose for pose in found if pose.object_id == name]
            true = [target for target in wanted if target.object_id == name]
            errors.setdefault(name, []).extend(_match(mine, true, library, vertices[name]))
    by_object = {
        name: {"recall_add_01d": recall(errors[name], ADD_THRESHOLD_DIAMETERS),
               "targets": len(errors[name])}
        for name in sorted(errors)
    }  # fmt: skip
    shares = [entry["recall_add_01d"] for entry in by_object.values()]
    return {
        "recall_add_01d": round(float(np.mean(shares)), 4) if shares else None,
        "targets": sum(map(len, errors.values())),
        "recall_by_object": by_object,
    }


def _match(
    poses: Sequence[PoseEstimate],
    targets: Sequence[Target],
    library: ObjectLibrary,
    vertices_m: FloatArray,
) -> list[float]:
    """ADD(-S) in diameters of each target, infinite where it is missed."""
    model = library[targets[0].object_id]
    errors = np.full((len(poses), len(targets)), np.inf)
    for e, pose in enumerate(poses):
        for t, target in enumerate(targets):
            T_est, T_true = pose.T_camera_object, target.T_camera_object
            errors[e, t] = add_or_adds_error_m(T_est, T_true, vertices_m, model.symmetries)
    errors /= model.diameter_m
    assigned = match_instances(errors, [pose.score for pose in poses])
    return [np.inf if e is None else float(errors[e, t]) for t, e in enumerate(assigned)]


def _load_vertices(library: ObjectLibrary, name: str) -> FloatArray:
    mesh = library[name].load_mesh()
    # a library without its meshes: the surface samples are on the same surface
    return library[name].surface[:, :3] if mesh is None else mesh.vertices_m
