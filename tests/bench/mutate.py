"""Mutated messages through everything that a message meets in the node, and what comes of them.

    python tests/bench/mutate.py --count 100000 --seed 0
    python tests/bench/mutate.py --count 100000 --each

Images of colour and depth in every encoding and byte order, compressed ones and CameraInfo, one
to three mutations each (``mutations.py``), go through the functions that the subscriptions call,
the pairing, the mailbox and the worker. In place of the networks stands a pipeline that finds an
object in every frame it gets: whatever reaches it would be published. Between them come good
frames, which must get through. With ``--each`` so many frames for every type of message there is
(each encoding, byte order and compression of colour and of depth, and CameraInfo), in all of which
the message of that type is mutated.

Fails (exit status 1) where a callback raises, an exception other than the refusal of the frame
comes out of the worker, a damaged frame reaches the pipeline, a good one does not within half a
second of frames, or the memory grows by more than 5 % after the first fifth.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mutations
import numpy as np
from mutations import BY_STREAM, FRAME_ID, Messages
from sensor_msgs.msg import CompressedImage

from heatnet_ros.config import PipelineConfig
from heatnet_ros.files import write_json
from heatnet_ros.machine import resident_memory_mb
from heatnet_ros.progress import Progress
from heatnet_ros.ros.frames import ImageSet, Topics
from heatnet_ros.ros.intake import Intake
from heatnet_ros.ros.mailbox import Mailbox
from heatnet_ros.ros.messages import ns_to_stamp
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
INFO = "camera_info"


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
    """What a message's mutations damaged; distortion is no matter where the image is rectified.

    Not its frame_id: another one is damage only where the other messages do not say the same.
    """

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
            topics, NodeConfig(), self.box, self.problems, self.statistics, lambda _: 1,
            time.time_ns,
        )  # fmt: skip
        self.stamp_ns = 10**18
        self.focus: str | None = None  # the type of message that is mutated in every frame
        self.by_type = defaultdict[str, Counter[str]](Counter)
        self.counts, self.faults = Counter[str](), list[str]()
        self._info_hits, self._info_frame_id = Hits(), ""  # of the CameraInfo that came last

    def _log(self, message: str) -> None:
        self.logged += 1

    def build(self) -> tuple[Messages, dict[str, str]]:
        """A good frame of any encoding, and which mutations its messages get."""
        color, depth = self._draw(self.colors), self._draw(self.depths)
        info = mutations.copy(self.info)
        self.stamp_ns += PERIOD_NS
        for message in (color, depth, info):
            message.header.frame_id = FRAME_ID
            message.header.stamp = ns_to_stamp(self.stamp_ns)
        streams = {"color": "color", "depth": "depth", "info": "info"}
        if isinstance(color, CompressedImage):
            streams["color"] = "compressed"
        if isinstance(depth, CompressedImage):
            streams["depth"] = "rvl_depth" if "rvl" in depth.format else "compressed_depth"
        return Messages(color, depth, info), streams

    def _draw(self, messages: dict[str, Any]) -> Any:
        name = self.focus if self.focus in messages else mutations.pick(self.rng, list(messages))
        return mutations.copy(messages[name])

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
                self._info_frame_id = frame.info.header.frame_id
                continue
            images_in += 1
            damaged |= hits.get(stream, Hits()).anything
            if images_in == 2:
                damaged |= self._info_hits.count(self.worker.settings.node.rectified)
                frame_ids = {frame.color.header.frame_id, frame.depth.header.frame_id}
                damaged |= frame_ids != {self._info_frame_id}
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

    def _choose_streams(self, streams: list[str]) -> list[str]:
        """Those that are mutated, the one of ``focus`` among them."""
        chosen = list(self.rng.permutation(streams)[: self.rng.choice([1, 1, 1, 2, 3])])
        if self.focus is None:
            return chosen
        stream = "color" if self.focus in self.colors else "depth"
        stream = "info" if self.focus == INFO else stream
        return [stream, *(other for other in chosen[1:] if other != stream)]

    def mutate(self, number: int) -> None:
        """One mutated frame."""
        frame, streams = self.build()
        self.worker.settings = replace(
            self.worker.settings,
            node=replace(NodeConfig(), rectified=bool(self.rng.random() < 0.2)),
        )
        hits: dict[str, Hits] = {}
        names = []
        for stream in self._choose_streams(list(streams)):
            mutation = mutations.pick(self.rng, BY_STREAM[streams[stream]])
            hit = mutation(self.rng, getattr(frame, stream)) and mutation is not mutations.header
            is_distortion = mutation in mutations.DISTORTION
            hits[stream] = Hits(hit and not is_distortion, hit and is_distortion)
            names.append(f"{mutation.__name__} of {streams[stream]}")
            self.counts[names[-1]] += 1
        what = f"number {number}: {', '.join(names)}"
        damaged, through = self.feed(frame, hits, what)
        if self.focus is not None:
            refused = int(damaged and not through)
            self.by_type[self.focus].update(mutated=1, damaged=int(damaged), refused=refused)
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
            self.focus = None
            frame, _ = self.build()
            if self.feed(frame, {}, "a good frame")[1]:
                self.counts["good"] += 1
                self.counts["good at once"] += tries == 0
                return
        present = {str(s): p.message[:200] for s, p in self.problems.present.items()}
        self._fault(f"after number {number} no good frame gets through: {present}")

    def run(self, count: int, each: bool = False) -> dict[str, Any]:
        """Mutate ``count`` frames, or so many for each type, and report."""
        types = [*self.colors, *self.depths, INFO] if each else [None]
        count *= len(types)
        progress = Progress("mutations", max(count // 100, 1))
        memory_mb: list[float] = []
        began_s = time.monotonic()
        for number in range(count):
            self.focus = types[number % len(types)]
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
            "by_type": {name: dict(row) for name, row in self.by_type.items()},
            "counts": dict(sorted(self.counts.items())),
        }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100_000, help="mutated frames (100000)")
    parser.add_argument("--each", action="store_true", help="so many for every type of message")
    parser.add_argument("--seed", type=int, default=0, help="the mutations follow from it (0)")
    parser.add_argument("--json", type=Path, help="file for the report")
    args = parser.parse_args()
    report = Mill(args.seed).run(args.count, args.each)
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
    for name, row in report["by_type"].items():
        print(f"{name}: {row['mutated']} mutated, {row['refused']} of {row['damaged']} refused")
    for fault in report["faults"]:
        print(f"FAILED: {fault}")
    return 1 if number("faults") else 0


if __name__ == "__main__":
    sys.exit(main())
