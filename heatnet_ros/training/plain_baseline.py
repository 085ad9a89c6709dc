"""The plain way, as a baseline for ``bench``: what the published code does, frame after frame.

PyTorch eager in float32, YOLOv10m on every frame, HeatNet on one crop at a time, arg-max decoding,
OpenCV's RANSAC PnP. Networks have random weights (time does not depend on them); boxes and heatmaps
are replaced by true ones, as in bench's other cases, and that is not counted.

``python -m heatnet_ros.training.plain_baseline RECORDING.npz --objects LIBRARY --out FILE.json``
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from heatnet_ros.bench.case import PERCENTILES
from heatnet_ros.bench.recording import Recording, load_recording
from heatnet_ros.bench.stand_ins import draw_heatmaps
from heatnet_ros.estimators.heatnet import decode_heatmaps
from heatnet_ros.estimators.heatnet_input import encode_depth
from heatnet_ros.files import write_json
from heatnet_ros.geometry.camera import crop_around_box, fit_letterbox
from heatnet_ros.objects import ObjectLibrary, load_objects
from heatnet_ros.progress import Progress
from heatnet_ros.training.untrained import MARGIN, YOLO_HW, build_full_heatnet, build_full_yolo
from heatnet_ros.types import Detection, Frame

WARM_UP_FRAMES = 2
RANSAC_PX = 3.0


class PlainPipeline:
    """One frame at a time; ``times_s`` has the seconds of each stage of the last one."""

    def __init__(self, library: ObjectLibrary, rgbd: bool) -> None:
        self._library, self._rgbd = library, rgbd
        self._names = list(library.objects)
        self._detector = build_full_yolo(library)
        self._network: Any = build_full_heatnet(library, rgbd)
        self.times_s: dict[str, float] = {}

    @torch.no_grad()
    def run(self, frame: Frame, boxes: tuple[Detection, ...], poses: dict[str, Any]) -> int:
        """Poses found. boxes, poses: the truth that stands in for the networks' answers."""
        start_s = time.perf_counter()
        image = fit_letterbox(frame.size_hw, YOLO_HW).apply(frame.rgb)
        self._detector(torch.from_numpy(image[None]))
        detected_s = time.perf_counter()
        self.times_s = {"detect": detected_s - start_s, "network": 0.0, "solve": 0.0}
        return sum(self._estimate(frame, box, poses) for box in boxes)

    def _estimate(self, frame: Frame, detection: Detection, poses: dict[str, Any]) -> bool:
        config, model = self._network.net.config, self._library[detection.object_id]
        start_s = time.perf_counter()
        crop = crop_around_box(detection.bbox_xyxy_px, config.crop_px, MARGIN)
        inputs = {
            "rgb": torch.from_numpy(crop.warp(frame.rgb)[None]),
            "object_index": torch.tensor([self._names.index(detection.object_id)]),
        }
        if self._rgbd and frame.depth_m is not None:
            depth = np.asarray(crop.warp(frame.depth_m, nearest=True), np.float32)
            inputs["depth"] = torch.from_numpy(encode_depth(depth, model.diameter_m)[None])
        self._network(**inputs)
        self.times_s["network"] += time.perf_counter() - start_s
        shape = (config.keypoints, config.heatmap_px, config.heatmap_px)
        maps = draw_heatmaps(
            frame, model, poses[detection.object_id], crop, shape, config.stride,
            np.random.default_rng(frame.stamp_ns),
        )  # fmt: skip
        start_s = time.perf_counter()
        points, _ = decode_heatmaps(maps[None], config.stride, "argmax")
        pixels = crop.to_image(points[0])
        found, *_ = cv2.solvePnPRansac(
            model.keypoints_m, pixels, frame.K, None, reprojectionError=RANSAC_PX
        )
        self.times_s["solve"] += time.perf_counter() - start_s
        return bool(found)


def measure(
    recording: Recording, library: ObjectLibrary, count: int, frames: int
) -> dict[str, Any]:
    """An entry as bench's ``runs`` have them."""
    boxes = recording.boxes(library, recording.choose(count))
    pipeline = PlainPipeline(library, recording.frames[0].depth_m is not None)
    times: list[float] = []
    stages: dict[str, list[float]] = {}
    progress = Progress("plain baseline, frame", frames)
    for number in range(WARM_UP_FRAMES + frames):
        i = number % len(recording.frames)
        frame = recording.frames[i]
        pipeline.run(frame, boxes[frame.stamp_ns], dict(recording.poses[i]))
        if number >= WARM_UP_FRAMES:
            times.append(sum(pipeline.times_s.values()))
            for stage, value_s in pipeline.times_s.items():
                stages.setdefault(stage, []).append(value_s)
            progress.step(f"{1e3 * times[-1]:.0f} ms")
    return {
        "engine": f"pytorch {torch.__version__} eager CPU", "precision": "fp32", "mode": "detect",
        "objects": count,
        "ms": {k: round(1e3 * float(np.percentile(times, p)), 2) for k, p in PERCENTILES.items()},
        "stages_ms": {k: round(1e3 * float(np.median(v)), 2) for k, v in stages.items()},
        "frames": len(times), "frames_per_s": round(len(times) / sum(times), 2),
        "threads": torch.get_num_threads(),
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recording", type=Path, help="of bench")
    parser.add_argument("--objects", type=Path, required=True, help="object library")
    parser.add_argument("--count", type=int, nargs="+", default=[1], help="objects per frame (1)")
    parser.add_argument("--frames", type=int, default=10, help="frames to measure (10)")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    args = parser.parse_args(arguments)
    recording, library = load_recording(args.recording), load_objects(args.objects)
    runs = [measure(recording, library, count, args.frames) for count in args.count]
    write_json(args.out, {"runs": runs})
    return 0


if __name__ == "__main__":
    sys.exit(main())
