"""Mutated messages through everything that a message meets in the node, and what comes of them.

    python tests/bench/mutate.py --count 100000 --seed 0

Images of colour and depth in every encoding and byte order, compressed ones and CameraInfo, one
to three mutations each (``mutations.py``), go through the functions that the subscriptions call,
the pairing, the mailbox and the worker. In place of the networks stands a pipeline that finds an
object in every frame it gets: whatever reaches it would be published. Between them come good
frames, which must get through.

Fails (exit status 1) where a callback raises, an exception other than the refusal of the frame
comes out of the worker, a damaged frame reaches the pipeline, a good one does not within half a
second of frames, or the memory grows by more than 5 % after the first fifth.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mutations
import numpy as np
from builtin_interfaces.msg import Time
from mutations import BY_STREAM, FRAME_ID, Messages
from sensor_msgs.msg import CompressedImage

from heatnet_ros.config import PipelineConfig
from heatnet_ros.files import write_json
from heatnet_ros.machine import resident_memory_mb
from heatnet_ros.progress import Progress
from heatnet_ros.ros.frames import ImageSet, Topics
from heatnet_ros.ros.intake import Intake
from heatnet_ros.ros.mailbox import Mailbox
from heatnet_ros.ros.node_config import NodeConfig
from heatnet_ros.ros.problems import Problems, Source
from heatnet_ros.ros.statistics import Statistics
from heatnet_ros.ros.worker import Settings, Worker
from heatnet_ros.types import Frame, PipelineResult

PERIOD_NS = 33_000_000
# after a small jump of the stamps, frames are older than the newest for so long
PATIENCE = 16
GOOD_EVERY = 10
MAX_GROWTH = 0.05
WARM_UP = 0.2
SHOWN = 10


class SeesAll:
    """A pipeline that takes every frame for one with a pose."""

    def __init__(self) -> None:
        self.config = PipelineConfig()
        self.frames: list[Frame] = []

    def run(self, frame: Frame) -> PipelineResult:
        self.frames.append(frame)
        return PipelineResult((), (), (), {}, {})

    def update(self, config: PipelineConfig) -> None:
        self.config = config

    def reset(self) -> None: ...


class Box(Mailbox[ImageSet]):
    """Is emptied in the thread that fills it."""

    def take_now(self) -> ImageSet | None:
        with self._condition:
            item, self._item = self._item, None
            return item


@dataclass
class Hits:
    """What a message's mutations damaged; distortion is no matter where the image is rectified."""

    anything: bool = False
    distortion: bool = False

    def count(self, rectified: bool) -> bool:
        return self.anything or (self.distortion and not rectified)


class Mill:
    """Intake, mailbox and worker of the node; ``faults`` says what went wrong."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        rgb, depth_mm = mutations.draw_frame()
        self.colors = mutations.build_colors(rgb)
        self.depths = mutations.build_depths(depth_mm)
        self.info = mutations.build_info(mutations.K, mutations.SIZE_WH)
        self.pipeline, self.box, self.statistics = SeesAll(), Box(), Statistics()
        self.logged = 0
        self.problems = Problems(self._log, self._log)
        topics, config = Topics("/color", "/info", "/depth"), PipelineConfig()
        self.worker = Worker(
            self.pipeline,  # type: ignore[arg-type]
            self.box, topics, Settings(NodeConfig(), config), lambda *_: None,
            time.time_ns, self.problems, self.statistics,
        )  # fmt: skip
        self.intake = Intake(
            topics, NodeConfig(), self.box, self.problems, self.statistics, lambda _: 1
        )
        self.stamp_ns = 10**18
        self.counts, self.faults = Counter[str](), list[str]()
        self._info_hits = Hits()  # of the CameraInfo that came last

    def _log(self, message: str) -> None:
        self.logged += 1

    def build(self) -> tuple[Messages, dict[str, str]]:
        """A good frame of any encoding, and which mutations its messages get."""
        name = mutations.pick(self.rng, list(self.colors))
        color = mutations.copy(self.colors[name])
        depth = mutations.copy(mutations.pick(self.rng, list(self.depths.values())))
        info = mutations.copy(self.info)
        self.stamp_ns += PERIOD_NS
        sec, nanosec = divmod(self.stamp_ns, 10**9)
        for message in (color, depth, info):
            message.header.frame_id = FRAME_ID
            message.header.stamp = Time(sec=sec, nanosec=nanosec)
        streams = {"color": "color", "depth": "depth", "info": "info"}
        if isinstance(color, CompressedImage):
            streams["color"] = "compressed"
        if isinstance(depth, CompressedImage):
            streams["depth"] = "rvl_depth" if "rvl" in depth.format else "compressed_depth"
        return Messages(color, depth, info), streams

    def feed(self, frame: Messages, hits: dict[str, Hits], what: str) -> tuple[bool, bool]:
        """Whether the frame must be refused, and whether it got through to the pipeline.

        The CameraInfo of a frame is the one that came last when its images were complete.
        """
        before, images_in, damaged = len(self.pipeline.frames), 0, False
        callbacks = {
            "info": self.intake.on_camera_info,
            "color": self.intake.on_color,
            "depth": self.intake.on_depth,
        }
        for stream in self.rng.permutation(list(callbacks)):
            try:
                callbacks[stream](getattr(frame, stream))
            except Exception as error:
                self._fault(f"the callback of {stream} raises {error!r} for {what}")
            if stream == "info":
                self._info_hits = hits.get("info", Hits())
                continue
            images_in += 1
            damaged |= hits.get(stream, Hits()).anything
            if images_in == 2:
                damaged |= self._info_hits.count(self.worker.settings.node.rectified)
        images = self.box.take_now()
        if images is not None:
            self.worker.handle(images)
            problem = self.problems.present.get(Source.PIPELINE)
            if problem is not None:
                self._fault(f"{problem.message[-600:]} for {what}")
                self.problems.clear(Source.PIPELINE)
        return damaged, len(self.pipeline.frames) > before

    def _fault(self, text: str) -> None:
        self.counts["faults"] += 1
        if len(self.faults) < SHOWN:
            self.faults.append(text)

    def mutate(self, number: int) -> None:
        """One mutated frame."""
        frame, streams = self.build()
        self.worker.settings = replace(
            self.worker.settings,
            node=replace(NodeConfig(), rectified=bool(self.rng.random() < 0.2)),
        )
        hits: dict[str, Hits] = {}
        names = []
        for stream in self.rng.permutation(list(streams))[: self.rng.choice([1, 1, 1, 2, 3])]:
            mutation = mutations.pick(self.rng, BY_STREAM[streams[stream]])
            hit = mutation(self.rng, getattr(frame, stream))
            is_distortion = mutation in mutations.DISTORTION
            hits[stream] = Hits(hit and not is_distortion, hit and is_distortion)
            names.append(f"{mutation.__name__} of {streams[stream]}")
            self.counts[names[-1]] += 1
        what = f"number {number}: {', '.join(names)}"
        damaged, through = self.feed(frame, hits, what)
        self.counts["damaged"] += damaged
        self.counts["refused"] += damaged and not through
        self.counts["harmless"] += not damaged
        self.counts["harmless through"] += not damaged and through
        if damaged and through:
            self._fault(f"a damaged frame got through: {what}")

    def recover(self, number: int) -> None:
        """Good frames until one is through."""
        self.worker.settings = replace(self.worker.settings, node=NodeConfig())
        for tries in range(PATIENCE):
            frame, _ = self.build()
            if self.feed(frame, {}, "a good frame")[1]:
                self.counts["good"] += 1
                self.counts["good at once"] += tries == 0
                return
        present = {str(s): p.message[:200] for s, p in self.problems.present.items()}
        self._fault(f"after number {number} no good frame gets through: {present}")

    def run(self, count: int) -> dict[str, Any]:
        """Mutate ``count`` frames and report."""
        progress = Progress("mutations", max(count // 100, 1))
        memory_mb: list[float] = []
        began_s = time.monotonic()
        for number in range(count):
            self.mutate(number)
            if number % GOOD_EVERY == 0:
                self.recover(number)
            if number % 100 == 0:
                self.intake.check()
                self.pipeline.frames.clear()
            if number % 100 == 99:
                memory_mb.append(resident_memory_mb())
                progress.step()
        before = memory_mb[int(WARM_UP * len(memory_mb))] if memory_mb else 0.0
        after = memory_mb[-1] if memory_mb else 0.0
        if after > (1 + MAX_GROWTH) * before:
            self._fault(f"memory grew from {before:.1f} to {after:.1f} MB")
        return {
            "count": count,
            "seconds": round(time.monotonic() - began_s, 1),
            "faults": self.faults,
            "memory_mb": {"warm": round(before, 1), "end": round(after, 1)},
            "logged": self.logged,
            "counts": dict(sorted(self.counts.items())),
        }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100_000, help="mutated frames (100000)")
    parser.add_argument("--seed", type=int, default=0, help="the mutations follow from it (0)")
    parser.add_argument("--json", type=Path, help="file for the report")
    args = parser.parse_args()
    report = Mill(args.seed).run(args.count)
    if args.json:
        write_json(args.json, report)
    counts, memory = report["counts"], report["memory_mb"]
    number = lambda key: counts.get(key, 0)  # noqa: E731
    print(
        f"{report['count']} frames in {report['seconds']} s: {number('refused')} of "
        f"{number('damaged')} damaged ones refused, {number('harmless through')} of "
        f"{number('harmless')} harmless ones and {number('good')} good ones got through "
        f"({number('good at once')} at once); memory {memory['warm']} -> {memory['end']} MB; "
        f"{report['logged']} lines logged; {number('faults')} faults"
    )
    for fault in report["faults"]:
        print(f"FAILED: {fault}")
    return 1 if number("faults") else 0


if __name__ == "__main__":
    sys.exit(main())
