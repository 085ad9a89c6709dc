"""What a running ``pose_node`` tells of itself on ``/diagnostics``, judged.

``values`` are the key-value pairs of its two statuses, ``<node>: input`` and ``<node>: pipeline``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from heatnet_ros.checks.depth import DepthMeasure, check_depth
from heatnet_ros.checks.finding import Finding, Level, ok, warning
from heatnet_ros.checks.streams import check_clock
from heatnet_ros.types import Reason

# older than that is no use to a robot that moves
MAX_LATENCY_MS = 500.0
# missing between the stamps: the camera itself leaves frames out, or they get lost on the way
MAX_DROPS = 0.1
# colour images without depth partner
MAX_UNPAIRED = 0.1
# images come, and CameraInfo does no more
MAX_INFO_AGE_S = 5.0
# an object without a pose for so long has left the view
RECENT_S = 3.0
_REMEDIES = {
    Reason.TOO_FEW_INLIERS: "Is it there at all? A detector's mistake is rightly rejected. Else "
    "come nearer, light it better, show more of it; gate.min_inliers is the limit.",
    Reason.REPROJECTION_HIGH: "Check the calibration (camera_info beside this very image, "
    "rectified as the image is) and that mesh and real object have the same shape and size.",
    Reason.DEPTH_DISAGREES: "Check that depth is aligned to colour and in the right unit, that "
    "the mesh has the real object's size, and that shiny parts have true depth; "
    "gate.max_depth_error is the limit.",
    Reason.SCORE_LOW: "Little of the depth agrees with the pose: more of the object must be in "
    "view and have depth; gate.min_score is the limit.",
    Reason.NO_DEPTH: "The depth image has none at the object: mind the camera's shortest range "
    "and surfaces that shine.",
    Reason.SAME_OBJECT: "One object found twice is rightly told once. Where there are two, part "
    "them: thin or hollow ones that overlap cannot be told apart.",
}


def check_values(values: Mapping[str, str]) -> list[Finding]:
    """What is wrong with the input by what a working node measured; the node says the same."""
    color, depth = values.get("topic.color", "color"), values.get("topic.depth", "depth")
    share, median_m = _number(values, "depth_valid"), _number(values, "depth_median_m")
    seen = None
    if share is not None and median_m is not None:
        seen = check_depth(depth, DepthMeasure(values.get("depth_encoding", "?"), share, median_m))
    delay_ms, drift = _number(values, "stamp_delay_ms"), _number(values, "stamp_drift_ms_per_s")
    clock = check_clock(
        color,
        None if delay_ms is None else delay_ms / 1e3,
        None if drift is None else drift / 1e3,
    )
    info = _check_info(values, values.get("topic.camera_info", "camera_info"))
    found = [seen, clock, info, _check_pairs(values, depth), _check_drops(values, color)]
    return [finding for finding in found if finding is not None and finding.level is not Level.OK]


def _check_info(values: Mapping[str, str], topic: str) -> Finding | None:
    age_s = _number(values, "camera_info_age_s")
    if age_s is None or age_s <= MAX_INFO_AGE_S:
        return None
    return warning(
        topic,
        f"the last CameraInfo came {age_s:.0f} s ago, images still come: its calibration is used",
        "Poses are wrong if the camera has been changed since: let it publish CameraInfo with "
        "every image.",
    )


def _check_pairs(values: Mapping[str, str], depth: str) -> Finding | None:
    unpaired = _number(values, "unpaired_rate")
    if unpaired is None or unpaired <= MAX_UNPAIRED:
        return None
    return warning(
        depth,
        f"{unpaired:.0%} of the colour images have no depth image of their time, the nearest is "
        f"{values.get('sync_offset_ms', '?')} ms away (median)",
        "Synchronise the camera's streams (RealSense: enable_sync:=true) or raise sync_slop_s; is "
        "depth slower than colour, or lost on its way?",
    )


def _check_drops(values: Mapping[str, str], color: str) -> Finding | None:
    drops = _number(values, "drop_rate")
    if drops is None or drops <= MAX_DROPS:
        return None
    return warning(
        color,
        f"{drops:.0%} of the images are missing between the stamps that the node received",
        "The camera leaves frames out (exposure, USB, load), or they get lost on the way: the "
        "doctor's line on the topic tells which.",
    )


def check_node(node: str, values: Mapping[str, str], with_input: bool = True) -> list[Finding]:
    """What the node is doing, its engines and times, why objects have no pose.

    with_input: also what it measured of its input, which one need not hear twice.
    """
    state = values.get("state", "unknown")
    if state != "active":
        return [
            warning(
                node,
                f"is {state}, expected active",
                "Activate it (ros2 lifecycle set), or see its error: without one it waits for a "
                "lifecycle manager (autostart: false).",
            )
        ]
    engines = [f"{k.removeprefix('engine.')} {v}" for k, v in values.items() if "engine." in k]
    found = [ok(node, f"active, {values.get('rate_hz', '?')} Hz, {', '.join(engines)}")]
    stages = [
        f"{key.removeprefix('stage_').removesuffix('_ms')} {value}"
        for key, value in values.items()
        if key.startswith("stage_")
    ]
    if stages:
        found += [ok(f"{node} stages", f"{', '.join(stages)} ms"), _judge_latency(node, values)]
    return found + (check_values(values) if with_input else []) + _judge_poses(node, values)


def _judge_latency(node: str, values: Mapping[str, str]) -> Finding:
    p95 = _number(values, "latency_stamp_p95_ms")
    text = f"{values.get('latency_stamp_p50_ms')} / {values.get('latency_stamp_p95_ms')} ms from "
    text += f"stamp to pose (p50 / p95), dropped {values.get('dropped', '?')} of "
    text += f"{values.get('received', '?')} frames"
    if p95 is None or 0 <= p95 <= MAX_LATENCY_MS:
        return ok(f"{node} latency", text)
    inside = _number(values, "latency_receive_p95_ms") or 0.0
    if inside > MAX_LATENCY_MS:
        remedy = (
            "The networks are too slow for this machine: see engines and stages; fewer objects "
            "(detector.max_detections), a GPU, or an INT8 model (python -m heatnet_ros quantize)."
        )
    else:
        remedy = (
            f"Only {inside:.0f} ms of it are in the node: clocks of camera and node disagree "
            "(chrony), images wait in the driver, or recorded data needs use_sim_time."
        )
    return warning(f"{node} latency", text, remedy)


def _judge_poses(node: str, values: Mapping[str, str]) -> list[Finding]:
    seen = [k.removeprefix("instances.") for k in values if k.startswith("instances.")]
    found = []
    for key, detail in values.items():
        if key.startswith("rejected."):
            reason = detail.split()[0]
            remedy = _REMEDIES[Reason(reason)] if reason in set(Reason) else ""
            name = key.removeprefix("rejected.")
            age_s = _number(values, f"rejected_age_s.{name}") or 0.0
            if name in seen:
                if age_s <= RECENT_S:
                    text = f"has a pose; another box of it gave none: {detail}"
                    found.append(ok(f"{node} {name}", text))
                continue
            if age_s > RECENT_S:
                found.append(ok(f"{node} {name}", f"no pose {age_s:.0f} s ago: {detail}"))
                continue
            text = f"seen, but no pose: {detail}"
            found.append(warning(f"{node} {name}", text, remedy))
    if seen:
        text = f"pose of {', '.join(seen)}; {values.get('boxes_followed', '?')} of "
        return [ok(node, f"{text}{values.get('boxes', '?')} boxes followed"), *found]
    recent = any(finding.level is not Level.OK for finding in found)
    if (_number(values, "processed") or 0) > 0 and not recent:
        return [
            *found,
            warning(
                node,
                "images are processed and none of its objects is detected",
                "Is one of them in view, in the light and the size that it was trained for? "
                "detector.score_threshold is the limit; `python -m heatnet_ros predict` on a saved "
                "image draws what it finds.",
            ),
        ]
    return found


def _number(values: Mapping[str, str], key: str) -> float | None:
    try:
        number = float(values[key])
    except (KeyError, ValueError):  # "none" of what was not measured yet
        return None
    return number if math.isfinite(number) else None
