"""The one thread that converts, runs the pipeline and publishes."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from heatnet_ros.checks.depth import measure_depth
from heatnet_ros.config import PipelineConfig
from heatnet_ros.errors import DataError, HeatnetError
from heatnet_ros.pipeline import Pipeline
from heatnet_ros.ros.frames import ImageSet, Topics, build_frame, encoding_of
from heatnet_ros.ros.mailbox import Mailbox
from heatnet_ros.ros.node_config import NodeConfig
from heatnet_ros.ros.problems import Problems, Source
from heatnet_ros.ros.statistics import Statistics
from heatnet_ros.types import Frame, PipelineResult


@dataclass(frozen=True)
class Settings:
    """The options of node and pipeline, replaced together."""

    node: NodeConfig
    pipeline: PipelineConfig


class Worker:
    """Runs from ``start`` to ``stop``. ``settings`` may be replaced while it runs.

    The first frame starts a new sequence, whatever the pipeline remembers.
    A frame takes the newest settings when its work starts and keeps them to its end.
    ``stamp_ns`` is the stamp of the latest frame. ``publish`` gets each result with its frame;
    ``now_ns`` is the clock that stamps images.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        mailbox: Mailbox[ImageSet],
        topics: Topics,
        settings: Settings,
        publish: Callable[[PipelineResult, Frame, NodeConfig], None],
        now_ns: Callable[[], int],
        problems: Problems,
        statistics: Statistics,
    ) -> None:
        self.settings = settings
        self.stamp_ns = 0
        self._forget = threading.Event()
        self._forget.set()  # what was before the activation is another sequence
        self._pipeline, self._mailbox, self._topics = pipeline, mailbox, topics
        self._publish, self._now_ns = publish, now_ns
        self._problems, self._statistics = problems, statistics
        self._thread = threading.Thread(target=self._run, name="pose_worker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Close the mailbox and wait until the frame in work is finished."""
        self._mailbox.close()
        self._thread.join()

    def forget(self) -> None:
        """Let the next frame start a new sequence."""
        self._forget.set()

    def _run(self) -> None:
        while (images := self._mailbox.take()) is not None:
            self.handle(images)

    def handle(self, images: ImageSet) -> None:
        """One frame, in the caller's thread; never raises."""
        try:
            self._process(images)
        except HeatnetError as error:
            self._statistics.count("failed")
            self._problems.report(Source.PIPELINE, str(error))
        except Exception:  # one frame must not end the node, whatever is wrong with it
            self._statistics.count("failed")
            self._problems.report(Source.PIPELINE, f"A frame failed: {traceback.format_exc()}")

    def _process(self, images: ImageSet) -> None:
        settings = self.settings
        try:
            frame = build_frame(images, self._topics, settings.node.rectified)
        except DataError as error:
            self._statistics.count("bad_input")
            self._problems.report(Source.INPUT, str(error))
            return
        self._problems.clear(Source.INPUT)
        if settings.pipeline is not self._pipeline.config:
            self._pipeline.update(settings.pipeline)
        asked = self._forget.is_set()
        if asked:  # else one that is asked for just now would be lost
            self._forget.clear()
        if asked or frame.stamp_ns < self.stamp_ns:  # the clock was set back
            self._pipeline.reset()
        self.stamp_ns = frame.stamp_ns
        result = self._pipeline.run(frame)
        self._publish(result, frame, settings.node)
        since_stamp_s = (self._now_ns() - frame.stamp_ns) / 1e9
        since_receive_s = time.monotonic() - images.received_s
        depth = None
        if images.depth is not None and frame.depth_m is not None:
            depth = measure_depth(encoding_of(images.depth), frame.depth_m)
        self._statistics.record(result, since_receive_s, since_stamp_s, depth)
        self._problems.clear(Source.PIPELINE)
