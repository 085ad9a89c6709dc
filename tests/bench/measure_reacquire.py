"""How long after an object is in view again until it has a right pose, at 30 Hz in real time.

    python tests/bench/measure_reacquire.py runs/bench/recording-XX.npz --params PARAMS

A board is drawn before one object (grey, nearer than it, in colour and depth) for half a
second, and for longer than an instance is remembered; then it is gone. The networks are the real
ones; the other objects stay in view and are followed.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np

from heatnet_ros.bench.recording import RATE_HZ, Recording, load_recording
from heatnet_ros.following import enclose
from heatnet_ros.metrics import add_or_adds_error_m
from heatnet_ros.objects import ObjectModel
from heatnet_ros.params_file import load_params
from heatnet_ros.pipeline import Pipeline, load_pipeline
from heatnet_ros.resources import find_resource
from heatnet_ros.types import FloatArray, Frame, PipelineResult

HIDDEN_FRAMES = (15, 45)  # half a second, and longer than an instance is remembered
WARM_UP, PATIENCE = 10, 60
BOARD_MARGIN_PX, BOARD_BEFORE_M = 12, 0.1


def main() -> None:
    """One line per object and length of the hiding."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("recording", type=Path, help="made by `python -m heatnet_ros bench`")
    parser.add_argument("--params", default="config/pose_demo.yaml")
    parser.add_argument(
        "--detect", action="store_true", help="the detector on every frame: what is possible"
    )
    args = parser.parse_args()
    recording = load_recording(args.recording)
    config = load_params(find_resource(args.params, "Parameter file"))
    follow = dataclasses.replace(config.follow, enabled=not args.detect)
    pipeline = load_pipeline(dataclasses.replace(config, follow=follow))
    pipeline.warm_up()
    waits: list[float] = []
    try:
        for name in recording.choose(len({n for poses in recording.poses for n, _ in poses})):
            for hidden in HIDDEN_FRAMES:
                wait_s, followed = _measure(pipeline, recording, name, hidden)
                text = "not in a second before" if wait_s is None else f"{wait_s:.3f} s"
                print(f"{name:12s} hidden {hidden / RATE_HZ:.1f} s: back after {text}, {followed}")
                waits += [] if wait_s is None else [wait_s]
    finally:
        pipeline.close()
    print(f"{len(waits)} times: median {np.median(waits):.3f} s, longest {max(waits):.3f} s")


def _measure(
    pipeline: Pipeline, recording: Recording, name: str, hidden: int
) -> tuple[float | None, str]:
    """Seconds from the first frame without the board; None where there was no pose before it."""
    pipeline.reset()
    model, start_s, back = pipeline.library[name], time.perf_counter(), WARM_UP + hidden
    seen_before = False
    for number in range(back + PATIENCE):
        # to and fro, so that nothing jumps
        turn = 2 * len(recording.frames) - 2
        i = min(number % turn, turn - number % turn)
        T = dict(recording.poses[i]).get(name)
        frame = dataclasses.replace(recording.frames[i], stamp_ns=round(number * 1e9 / RATE_HZ))
        if T is not None and WARM_UP <= number < back:
            frame = _hide(frame, model, T)
        time.sleep(max(0.0, start_s + number / RATE_HZ - time.perf_counter()))
        result = pipeline.run(frame)
        right = T is not None and _has_right_pose(result, model, T)
        if number < WARM_UP:
            seen_before |= right
        elif number < back:
            assert not right, f"{name} was seen through the board"
        elif right and seen_before:
            others = sum(d.followed for d in result.detections)
            return (number - back) / RATE_HZ, f"{others} others followed"
    if seen_before:
        return PATIENCE / RATE_HZ, "NOT FOUND"
    return None, ""


def _hide(frame: Frame, model: ObjectModel, T: FloatArray) -> Frame:
    box = enclose(T, model, frame)
    assert box is not None and frame.depth_m is not None
    h, w = frame.size_hw
    low = np.maximum(np.floor(box[:2]).astype(int) - BOARD_MARGIN_PX, 0)
    high = np.minimum(np.ceil(box[2:]).astype(int) + BOARD_MARGIN_PX, (w, h))
    board = np.s_[low[1] : high[1], low[0] : high[0]]
    rgb, depth_m = frame.rgb.copy(), frame.depth_m.copy()
    rgb[board] = 128
    depth_m[board] = T[2, 3] - model.diameter_m / 2 - BOARD_BEFORE_M
    return dataclasses.replace(frame, rgb=rgb, depth_m=depth_m)


def _has_right_pose(result: PipelineResult, model: ObjectModel, T: FloatArray) -> bool:
    points_m, limit_m = model.surface[:, :3], 0.1 * model.diameter_m
    return any(
        add_or_adds_error_m(pose.T_camera_object, T, points_m, model.symmetries) < limit_m
        for pose in result.poses
        if pose.object_id == model.name
    )


if __name__ == "__main__":
    main()
