"""The worker between mailbox and publishers: whom it blames, what it takes when. No DDS."""

import collections
import dataclasses
import threading
import time

import pytest
from fakes import SIZE_HW, K, World, pose
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from heatnet_ros.config import DetectorConfig, PipelineConfig
from heatnet_ros.errors import DataError
from heatnet_ros.ros.frames import Topics
from heatnet_ros.ros.intake import Intake
from heatnet_ros.ros.mailbox import Mailbox
from heatnet_ros.ros.messages import array_to_image
from heatnet_ros.ros.node_config import NodeConfig
from heatnet_ros.ros.problems import Problems, Source
from heatnet_ros.ros.statistics import Statistics
from heatnet_ros.ros.worker import Settings, Worker

NEW = PipelineConfig(detector=DetectorConfig(score_threshold=0.99))
LIMIT_S = 20.0
WEDGE = (("wedge", pose(0.0, 0.0, 0.8)),)


class Fifo:
    """What the mailbox must not be: every item is kept."""

    def __init__(self):
        self._condition, self._items, self._closed = threading.Condition(), [], False

    def put(self, item):
        with self._condition:
            self._items.append(item)
            self._condition.notify()

    def take(self):
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._items)
            return None if self._closed else self._items.pop(0)

    def close(self):
        with self._condition:
            self._closed = True
            self._condition.notify()


class Desk:
    """Intake, mailbox and worker with the real pipeline, whose detector waits for ``go`` if held.

    Frame ``number`` has the stamp of ``number`` seconds. ``started``: number -> newest number that
    had arrived when its processing started. ``results``: number -> result.
    """

    def __init__(self, mailbox=None, truth=WEDGE):
        self.world = World(*truth)
        self.pipeline = self.world.pipeline()
        self.answer = self.pipeline._detector.engine.answer
        self.pipeline._detector.engine.answer = self._detect
        self.held, self.go = False, threading.Semaphore(0)
        self.newest, self.started, self.results = 0, {}, {}
        self.errors, self.statistics = [], Statistics()
        self.problems = Problems(self.errors.append, lambda _: None)
        frame = self.world.frame()
        self.color = array_to_image(frame.rgb, "rgb8")
        self.depth = array_to_image((frame.depth_m * 1000).round().astype("uint16"), "16UC1")
        self.restart(mailbox)

    def restart(self, mailbox=None):
        mailbox, topics = mailbox or Mailbox(), Topics("/color", "/info", "/depth")
        self.worker = Worker(
            self.pipeline, mailbox, topics, Settings(NodeConfig(), self.pipeline.config),
            self._publish, lambda: 0, self.problems, self.statistics,
        )  # fmt: skip
        self.intake = Intake(
            topics, NodeConfig(), mailbox, self.problems, self.statistics, lambda _: 1, lambda: 0
        )
        info = CameraInfo(width=SIZE_HW[1], height=SIZE_HW[0], k=K.ravel().tolist())
        self.intake.on_camera_info(info)
        self.worker.start()

    def _detect(self, tensors):
        self.started[self.worker.stamp_ns // 10**9] = self.newest
        if self.held:
            assert self.go.acquire(timeout=LIMIT_S)
        return self.answer(tensors)

    def _publish(self, result, frame, lifetime_s):
        self.results[frame.stamp_ns // 10**9] = result

    def arrive(self):
        self.newest += 1
        header = Header()
        header.stamp.sec = self.newest
        for message, callback in (
            (self.depth, self.intake.on_depth), (self.color, self.intake.on_color),
        ):  # fmt: skip
            # a copy, as DDS delivers one: the worker still reads the last
            fields = {name: getattr(message, name) for name in ("height", "width", "encoding")}
            callback(type(message)(header=header, step=message.step, data=message.data, **fields))

    def wait_for(self, condition):
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < deadline, (self.started, self.results.keys(), self.errors)
            time.sleep(0.001)


@pytest.fixture
def make_desk():
    desks = []

    def make(*args):
        desks.append(Desk(*args))
        return desks[-1]

    yield make
    for desk in desks:
        desk.held = False
        desk.go.release(1000)
        desk.worker.stop()


def largest_wait(desk, steps=8, arrivals=3):
    """Most frames that arrived between the arrival of a frame and the start of its processing.

    While the worker works on one frame, ``arrivals`` others come.
    """
    desk.held = True
    desk.arrive()
    for step in range(steps):
        desk.wait_for(lambda s=step: len(desk.started) > s)
        for _ in range(arrivals):
            desk.arrive()
        desk.go.release()
    desk.wait_for(lambda: len(desk.started) > steps)
    return max(newest - number for number, newest in desk.started.items())


def test_a_slow_worker_takes_the_newest_frame(make_desk):
    assert largest_wait(make_desk()) <= 1


def test_a_queue_would_be_noticed(make_desk):
    """The measure above is worth something."""
    assert largest_wait(make_desk(Fifo())) > 10


@pytest.mark.parametrize("fault", [DataError("inner array"), ZeroDivisionError("on fire")])
def test_a_failing_pipeline_is_not_blamed_on_the_input(make_desk, fault):
    desk = make_desk()

    def broken(_):
        raise fault

    desk.pipeline._detector.engine.answer = broken
    desk.arrive()
    desk.wait_for(lambda: desk.errors)
    assert list(desk.problems.present) == [Source.PIPELINE] and str(fault) in desk.errors[0]
    values = desk.statistics.values()
    assert (values["failed"], values["bad_input"]) == ("1", "0")
    desk.pipeline._detector.engine.answer = desk._detect
    desk.arrive()
    desk.wait_for(lambda: desk.results)
    desk.wait_for(lambda: not desk.problems.present)


def test_bad_input_is_blamed_on_the_input_and_over_with_a_good_frame(make_desk):
    desk = make_desk()
    data, desk.color.data = desk.color.data, desk.color.data[:-1]
    desk.arrive()
    desk.wait_for(lambda: desk.errors)
    assert list(desk.problems.present) == [Source.INPUT] and "/color" in desk.errors[0]
    desk.color.data = data
    desk.pipeline._detector.engine.answer = lambda _: {}["boom"]  # the image itself is good
    desk.arrive()
    desk.wait_for(lambda: list(desk.problems.present) == [Source.PIPELINE])


def test_a_new_worker_starts_a_new_sequence(make_desk):
    """As after deactivate and activate: a ~/reset that no frame came after is not lost."""
    desk = make_desk(None, [("wedge", pose(x, 0.0, 0.8)) for x in (0.0, 0.2)])
    desk.arrive()
    desk.wait_for(lambda: 1 in desk.results)
    assert [p.instance for p in desk.results[1].poses] == [0, 1]
    desk.worker.forget()
    desk.worker.stop()
    desk.restart()
    desk.world.hidden = {0}
    desk.arrive()  # within the second in which ids are remembered
    desk.wait_for(lambda: 2 in desk.results)
    assert [p.instance for p in desk.results[2].poses] == [0]


class AskedJustThen(threading.Event):
    """A ~/reset comes right after the worker has looked for one, once."""

    def __init__(self):
        super().__init__()
        self.came = False

    def is_set(self):
        before = super().is_set()
        if not before and not self.came:
            self.came = True
            self.set()
        return before


def test_a_reset_in_the_middle_of_a_frame_is_done_with_the_next(make_desk):
    desk = make_desk(None, [("wedge", pose(x, 0.0, 0.8)) for x in (0.0, 0.2)])
    desk.arrive()
    desk.wait_for(lambda: 1 in desk.results)
    desk.worker._forget = AskedJustThen()
    desk.arrive()
    desk.wait_for(lambda: 2 in desk.results)
    assert desk.worker._forget.came
    desk.world.hidden = {0}
    desk.arrive()
    desk.wait_for(lambda: 3 in desk.results)
    assert [p.instance for p in desk.results[3].poses] == [0]


def test_new_thresholds_are_used_from_the_next_frame_on(make_desk):
    """No frame is detected with the old thresholds and gated with the new ones."""
    desk = make_desk()
    desk.held = True
    desk.arrive()
    desk.wait_for(lambda: 1 in desk.started)
    node_config = dataclasses.replace(NodeConfig(), marker_lifetime_s=7.0)
    desk.worker.settings = Settings(node_config, NEW)
    assert desk.pipeline.config == PipelineConfig()
    assert desk.pipeline._detector.config == PipelineConfig().detector
    desk.go.release()
    desk.wait_for(lambda: 1 in desk.results)
    desk.arrive()
    desk.wait_for(lambda: 2 in desk.started)
    assert desk.pipeline.config == NEW
    desk.go.release()
    desk.wait_for(lambda: 2 in desk.results)
    found = collections.Counter({n: len(r.poses) for n, r in desk.results.items()})
    assert found == {1: 1, 2: 0}
