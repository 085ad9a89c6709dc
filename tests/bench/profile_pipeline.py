"""Where a frame's time and memory go: cProfile and tracemalloc on bench's recording.

    python tests/bench/profile_pipeline.py runs/bench/recording-XXXX.npz --objects 13

Time: the functions with the largest share, following, in milliseconds a frame; profiling makes
small functions look 1.2 to 1.5 times slower than they are. Memory: the largest growth that numpy
and Python had within one frame, beside the size of the frame's images: a copy of an image would
show. (OpenVINO's own buffers are allocated once and are not counted.)
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tracemalloc
from pathlib import Path

import numpy as np

from heatnet_ros.bench.case import FOLLOW, WARM_UP_FRAMES, Case, Playlist, open_case
from heatnet_ros.bench.recording import load_recording
from heatnet_ros.pipeline import Pipeline

FRAMES = 60


def main() -> None:
    """Profile and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("recording", type=Path, help="made by `python -m heatnet_ros bench`")
    parser.add_argument("--params", default="config/pose_lm_rgbd.yaml")
    parser.add_argument("--objects", type=int, default=13)
    parser.add_argument("--lines", type=int, default=30, help="functions to show")
    args = parser.parse_args()
    case = Case(
        args.params, str(args.recording), "", "openvino", "auto", FOLLOW, (args.objects,), FRAMES,
        rate_hz=0.0,
    )  # fmt: skip
    pipeline, playlist, _, _ = open_case(case, load_recording(args.recording), args.objects)
    try:
        for frame in playlist.frames[:WARM_UP_FRAMES]:
            pipeline.run(frame)
        _print_time(pipeline, playlist, args.lines)
        _print_memory(pipeline, playlist)
    finally:
        pipeline.close()


def _print_time(pipeline: Pipeline, playlist: Playlist, lines: int) -> None:
    profile, frames = cProfile.Profile(), playlist.frames[WARM_UP_FRAMES:]
    for frame in frames:
        profile.runcall(pipeline.run, frame)
    rows = pstats.Stats(profile).stats.items()  # type: ignore[attr-defined]
    print("calls/frame  own ms  with callees ms  function")
    for (file, line, name), (_, calls, own_s, whole_s, _) in sorted(
        rows, key=lambda row: -row[1][3]
    )[:lines]:
        where = name if line == 0 else f"{Path(file).name}:{line} {name}"
        print(
            f"{calls / len(frames):11.1f} {1e3 * own_s / len(frames):7.2f} "
            f"{1e3 * whole_s / len(frames):16.2f}  {where}"
        )


def _print_memory(pipeline: Pipeline, playlist: Playlist) -> None:
    growth = []
    tracemalloc.start()
    for frame in playlist.frames[WARM_UP_FRAMES : WARM_UP_FRAMES + 20]:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        pipeline.run(frame)
        growth.append(tracemalloc.get_traced_memory()[1] - before)
    tracemalloc.stop()
    frame = playlist.frames[0]
    depth_mb = 0.0 if frame.depth_m is None else frame.depth_m.nbytes / 1e6
    print(
        f"largest growth of memory within a frame: median {np.median(growth) / 1e6:.2f} MB, most "
        f"{max(growth) / 1e6:.2f} MB; colour image {frame.rgb.nbytes / 1e6:.2f} MB, depth "
        f"{depth_mb:.2f} MB"
    )


if __name__ == "__main__":
    main()
