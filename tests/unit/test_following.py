"""Following: boxes from poses, the detector beside them, what is lost or new, ids that stay."""

import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from fakes import LIBRARY, MESHES, SIZE_HW, K, World, pose

from heatnet_ros.config import FollowConfig, PipelineConfig
from heatnet_ros.errors import EngineError
from heatnet_ros.following import MIN_IN_VIEW, NICE, PATIENCE_NS, SOON_S, TRIES, enclose
from heatnet_ros.geometry import se3
from heatnet_ros.geometry.camera import project
from heatnet_ros.pipeline import Pipeline
from heatnet_ros.types import Detection, Frame, PipelineResult

FRAME_NS = 33_333_333
CONFIG = PipelineConfig(follow=FollowConfig(redetect_s=0.4))
Build = Callable[[World, PipelineConfig], Pipeline]


@pytest.fixture
def build() -> Iterator[Build]:
    """A pipeline of a world, closed at the end."""
    made = []

    def make(world: World, config: PipelineConfig = CONFIG) -> Pipeline:
        made.append(world.pipeline(config))
        return made[-1]

    yield make
    for pipeline in made:
        pipeline.close()


def looks(pipeline: Pipeline) -> int:
    return len(pipeline._detector.engine.calls)


def run(pipeline: Pipeline, world: World, number: int) -> PipelineResult:
    """A frame as from a camera: the thread has time for a look before the next one."""
    result = pipeline.run(world.frame(stamp_ns=number * FRAME_NS))
    search = pipeline._follower._search
    if search is not None:
        search.exception(timeout=10)
        time.sleep(0.05)  # the detector rests after a look
    return result


def position_m(result: PipelineResult, instance: int) -> np.ndarray:
    (found,) = (p for p in result.poses if p.instance == instance)
    return found.T_camera_object[:3, 3]


def test_the_detector_looks_now_and_then_and_poses_stay_right(build: Build) -> None:
    world = World(("wedge", pose(0, 0, 0.7)), ("brick", pose(0.2, 0.1, 0.8)))
    pipeline = build(world)
    for i in range(31):
        world.truth = [
            ("wedge", pose(-0.2 + 0.012 * i, -0.003 * i, 0.7, (2.2, 0.4 + 0.02 * i, 0.3))),
            ("brick", pose(0.2, 0.1, 0.8)),
        ]
        result = run(pipeline, world, i)
        assert [d.followed for d in result.detections] == [i > 0] * 2
        for found, (name, T) in zip(result.poses, world.truth, strict=True):
            assert found.object_id == name
            assert np.linalg.norm(found.T_camera_object[:3, 3] - T[:3, 3]) < 1e-3
    assert looks(pipeline) == 1 + 2  # 31 frames are one second: at 0, 0.4 and 0.8 s


def test_the_box_is_where_a_moving_object_will_be(build: Build) -> None:
    world = World(("wedge", pose(0, 0, 0.7)))
    pipeline = build(world)
    for i in range(12):
        world.truth = [("wedge", pose(-0.15 + 0.02 * i, 0, 0.7 - 0.005 * i))]  # 0.6 m/s
        result = run(pipeline, world, i)
        (expected,) = world.detections()
        if i > 6:  # the velocity is a mean over the last few frames
            (box,) = result.detections
            off = np.abs(np.subtract(box.bbox_xyxy_px, expected.bbox_xyxy_px)).max()
            assert box.followed and off < 3.0  # it moves by 17 px from frame to frame


def test_off_means_the_detector_on_every_frame(build: Build) -> None:
    world = World(("wedge", pose(0, 0, 0.7)))
    pipeline = build(world, PipelineConfig(follow=FollowConfig(enabled=False)))
    for i in range(5):
        assert not run(pipeline, world, i).detections[0].followed
    assert looks(pipeline) == 5
    pipeline.update(CONFIG)  # while it runs
    assert run(pipeline, world, 5).detections[0].followed
    assert looks(pipeline) == 5


def test_without_any_pose_the_detector_looks_on_every_frame(build: Build) -> None:
    world = World(("wedge", pose(0, 0, 0.7)))
    world.hidden = {0}
    pipeline = build(world)
    for i in range(3):
        assert run(pipeline, world, i).detections == ()
    assert looks(pipeline) == 3
    world.hidden = set()
    assert len(run(pipeline, world, 3).poses) == 1  # at once


def test_a_lost_object_is_searched_at_once_and_found_where_it_went(build: Build) -> None:
    world = World(("wedge", pose(-0.1, 0, 0.7)), ("brick", pose(0.2, 0.1, 0.8)))
    slow = dataclasses.replace(CONFIG, follow=FollowConfig(redetect_s=3600.0))
    pipeline = build(world, slow)
    run(pipeline, world, 0)
    assert looks(pipeline) == 1
    world.truth[0] = ("wedge", pose(-0.1, -0.2, 0.9))  # taken away and put elsewhere
    results = [run(pipeline, world, i) for i in range(1, 5)]
    assert [p.object_id for p in results[0].poses] == ["brick"]
    assert looks(pipeline) >= 2
    assert sorted(p.object_id for p in results[-1].poses) == ["brick", "wedge"]


def test_when_all_are_lost_the_detector_looks_in_the_same_frame(build: Build) -> None:
    world = World(("wedge", pose(-0.1, 0, 0.7)), ("brick", pose(0.2, 0.1, 0.8)))
    pipeline = build(world)
    run(pipeline, world, 0)
    world.truth = [("disc", pose(0.1, -0.1, 0.8)), ("wedge", pose(0.2, 0.1, 0.7))]  # a cut
    result = run(pipeline, world, 1)
    assert sorted(p.object_id for p in result.poses) == ["disc", "wedge"]
    assert not any(d.followed for d in result.detections)
    assert {"detect", "estimate", "refine", "gate", "filter"} == set(result.timings_s)


def test_a_frame_is_not_looked_at_twice(build: Build) -> None:
    world = World(("wedge", pose(-0.1, 0, 0.7)))
    pipeline = build(world)
    for i in range(8):
        run(pipeline, world, i)
    assert looks(pipeline) == 1
    world.truth = [("wedge", pose(0.2, 0.1, 0.9))]  # a cut in the frame that is due to be searched
    assert len(run(pipeline, world, 8).poses) == 1
    assert looks(pipeline) == 2


@pytest.mark.skipif(not hasattr(os, "getpriority"), reason="no os.getpriority on this system")
def test_the_search_stands_back_and_the_poses_do_not(build: Build) -> None:
    pipeline = build(World(("wedge", pose(0, 0, 0.7))))
    own = os.getpriority(os.PRIO_PROCESS, 0)
    thread = pipeline._follower._pool.submit(
        lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    )
    assert thread.result() == min(own + NICE, 19)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own


def test_a_hidden_object_keeps_its_id_and_gives_no_pose_meanwhile(build: Build) -> None:
    world = World(("wedge", pose(-0.2, 0, 0.7)), ("wedge", pose(0.1, 0, 0.7)))
    pipeline = build(world)
    assert [p.instance for p in run(pipeline, world, 0).poses] == [0, 1]
    for i in range(1, 20):
        world.hidden = {0} if 5 <= i < 15 else set()  # a third of a second
        poses = run(pipeline, world, i).poses
        if i in (6, 14):
            assert [p.instance for p in poses] == [1]
    assert sorted(p.instance for p in poses) == [0, 1]
    assert position_m(run(pipeline, world, 20), 0)[0] == pytest.approx(-0.2, abs=1e-3)


def test_a_hidden_object_is_not_looked_at_for_ever(build: Build) -> None:
    world = World(("wedge", pose(-0.2, 0, 0.7)), ("brick", pose(0.2, 0.1, 0.8)))
    pipeline = build(world)
    run(pipeline, world, 0)
    world.hidden = {0}
    followed = [len(run(pipeline, world, i).detections) for i in range(1, 15)]
    patience = int(PATIENCE_NS // FRAME_NS)
    assert followed == [2] * patience + [1] * (14 - patience)


def test_what_was_lost_is_looked_for_without_a_pause(build: Build) -> None:
    """For five seconds: longer than its id is kept. Then only now and then."""
    world = World(("wedge", pose(-0.2, 0, 0.7)), ("brick", pose(0.2, 0.1, 0.8)))
    pipeline = build(world, dataclasses.replace(CONFIG, follow=FollowConfig(redetect_s=3600.0)))
    run(pipeline, world, 0)
    world.hidden = {0}
    counts = []
    for i in range(1, 61):
        run(pipeline, world, 3 * i)  # 10 Hz
        counts.append(looks(pipeline))
    at = {seconds: counts[10 * seconds - 1] for seconds in (1, 2, 4, 5, 6)}
    assert at[2] - at[1] >= 4 and at[5] - at[4] >= 4
    assert at[6] - at[5] <= 1
    world.hidden = set()
    pipeline.reset()
    assert len(run(pipeline, world, 200).poses) == 2
    before = looks(pipeline)
    for i in range(201, 231):
        run(pipeline, world, i)
    assert looks(pipeline) <= before + 2  # found again: only after 0.25 and 0.75 s


def test_what_comes_back_is_missed_no_more(build: Build) -> None:
    world = World(("wedge", pose(-0.2, 0, 0.7)), ("brick", pose(0.2, 0.1, 0.8)))
    pipeline = build(world, dataclasses.replace(CONFIG, follow=FollowConfig(redetect_s=3600.0)))
    for i in range(90):
        world.hidden = {0} if 5 <= i < 50 else set()  # longer than its id is kept
        result = run(pipeline, world, i)
    assert len(result.poses) == 2
    before = looks(pipeline)
    for i in range(90, 110):
        run(pipeline, world, i)
    assert looks(pipeline) <= before + 1  # a second after it came back


def test_what_is_no_object_does_not_keep_the_detector_busy(build: Build) -> None:
    world = World(("wedge", pose(-0.2, 0, 0.7)), ("brick", pose(0.2, 0.1, 0.8)))
    pipeline = build(world)
    run(pipeline, world, 0)
    world.hidden = set()
    detect, ghost = pipeline._detector.detect, Detection("disc", (400, 300, 460, 360), 0.5)
    pipeline._detector.detect = lambda *args: [*detect(*args), ghost]
    before = looks(pipeline)
    crops = [len(run(pipeline, world, i).detections) for i in range(1, 61)]
    assert looks(pipeline) - before <= 5  # one each 0.4 s
    assert sum(crops) - 2 * 60 <= 5 * TRIES and max(crops) == 3


def test_what_has_moved_on_during_a_slow_look_is_not_new(build: Build) -> None:
    world = World(("wedge", pose(-0.3, 0, 0.7)))
    pipeline = build(world)
    detect, seen = pipeline._detector.detect, threading.Event()

    def slow(*args: object) -> list[Detection]:
        found = detect(*args)
        seen.wait(10)
        return found

    pipeline.run(world.frame(stamp_ns=0))
    pipeline._detector.detect = slow
    for i in range(1, 25):
        world.truth = [("wedge", pose(-0.3 + 0.02 * i, 0, 0.7))]  # 0.6 m/s
        if i == 20:  # the look of frame 12 ends: the object is 8 frames away from there
            seen.set()
            pipeline._follower._search.exception(timeout=10)
        result = pipeline.run(world.frame(stamp_ns=i * FRAME_NS))
        assert [d.followed for d in result.detections] == [True]


def test_unwanted_objects_do_not_use_up_the_limit(build: Build) -> None:
    world = World(("wedge", pose(-0.2, 0, 0.7)), ("disc", pose(0.2, 0.1, 0.8)))
    narrow = dataclasses.replace(CONFIG.detector, max_detections=1)
    config = dataclasses.replace(CONFIG, detector=narrow, objects=("disc",))
    pipeline = build(world, config)
    for i in range(3):
        assert [p.object_id for p in run(pipeline, world, i).poses] == ["disc"]


def test_two_instances_cross_and_keep_their_ids(build: Build) -> None:
    """The one behind is hidden while they overlap."""
    world = World(("wedge", pose(0, 0, 0.7)), ("wedge", pose(0, 0, 0.9)))
    pipeline = build(world)
    frames = 40
    for i in range(frames):
        x = -0.2 + 0.4 * i / (frames - 1)  # 0.3 m/s each
        world.truth = [("wedge", pose(x, 0, 0.7)), ("wedge", pose(-x, 0, 0.9))]
        world.hidden = {1} if abs(x) < 0.04 else set()
        result = run(pipeline, world, i)
        if i == 0:
            first = {p.instance: p.T_camera_object[2, 3] for p in result.poses}
    last = {p.instance: p.T_camera_object[2, 3] for p in result.poses}
    assert last == pytest.approx(first, abs=1e-3)
    assert sorted(last) == [0, 1]


def test_a_new_object_is_found_while_others_are_followed(build: Build) -> None:
    world = World(("wedge", pose(0, 0, 0.7)), ("brick", pose(0.2, 0.1, 0.8)))
    world.hidden = {1}
    pipeline = build(world)
    for i in range(5):
        assert len(run(pipeline, world, i).poses) == 1
    world.hidden = set()
    counts = [len(run(pipeline, world, i).poses) for i in range(5, 5 + 14)]
    assert counts[-1] == 2 and counts[0] == 1
    assert counts.index(2) <= 0.4 / 0.033 + 2  # redetect_s, and the frame after the look


def test_looks_become_rare_where_nothing_changes_and_dense_after_a_new_object(
    build: Build,
) -> None:
    world = World(("wedge", pose(0, 0, 0.7)), ("brick", pose(0.2, 0.1, 0.8)))
    world.hidden = {1}
    rare = dataclasses.replace(CONFIG, follow=FollowConfig(redetect_s=2.0))
    pipeline = build(world, rare)
    looked_s = []
    for i in range(330):
        before = looks(pipeline)
        run(pipeline, world, i)
        looked_s += [i * FRAME_NS / 1e9] * (looks(pipeline) - before)
        if looked_s[-1] > 7.0:  # the look after this one finds it
            world.hidden = set()
    pauses_s = np.diff(looked_s)
    expected_s = [SOON_S, 0.5, 1.0, 2.0, 2.0, 2.0, 2.0, SOON_S, 0.5]
    assert pauses_s[: len(expected_s)] == pytest.approx(expected_s, abs=0.04)


def test_objects_that_are_wanted_anew_are_looked_for_at_once(build: Build) -> None:
    """Not only after the pause between looks, nor by a look for what was wanted before."""
    world = World(("wedge", pose(0, 0, 0.7)), ("brick", pose(0.2, 0.1, 0.8)))
    rare = dataclasses.replace(CONFIG, follow=FollowConfig(redetect_s=3600.0), objects=("wedge",))
    pipeline = build(world, rare)
    for i in range(60):  # two seconds: looks have become rare
        assert len(run(pipeline, world, i).poses) == 1
    pipeline.update(dataclasses.replace(rare, objects=()))
    run(pipeline, world, 60)
    assert [p.object_id for p in run(pipeline, world, 61).poses] == ["wedge", "brick"]


def test_a_new_object_is_found_where_stamps_stand_still(build: Build) -> None:
    world = World(("wedge", pose(0, 0, 0.7)), ("brick", pose(0.2, 0.1, 0.8)))
    world.hidden = {1}
    pipeline = build(world)
    assert len(run(pipeline, world, 0).poses) == 1
    world.hidden = set()
    assert len(run(pipeline, world, 0).poses) == 1 and looks(pipeline) == 1
    deadline_s = time.monotonic() + 10
    while len(run(pipeline, world, 0).poses) < 2:
        assert time.monotonic() < deadline_s
    assert looks(pipeline) == 2


def test_a_box_without_a_pose_is_tried_again_before_the_next_look(build: Build) -> None:
    world = World(("wedge", pose(0, 0, 0.7)), ("brick", pose(0.2, 0.1, 0.8)))
    pipeline = build(world)
    run(pipeline, world, 0)
    brick = world.detections()[1]
    pipeline._follower._memory._tracks.pop(("brick", 0))
    pipeline._follower._pending = [brick]
    pipeline._follower._rest_until_s = np.inf  # no look
    assert len(run(pipeline, world, 1).poses) == 2
    assert looks(pipeline) == 1


def test_an_object_that_leaves_the_image_is_not_followed(build: Build) -> None:
    world = World(("wedge", pose(0.3, 0, 0.7)), ("brick", pose(-0.2, 0.1, 0.8)))
    pipeline = build(world)
    for i in range(14):
        world.truth[0] = ("wedge", pose(0.3 + 0.02 * i, 0, 0.7))
        world.hidden = {0} if i > 3 else set()
        result = run(pipeline, world, i)
    assert [d.object_id for d in result.detections] == ["brick"]


def test_an_error_of_the_thread_reaches_the_caller(build: Build) -> None:
    world = World(("wedge", pose(0, 0, 0.7)))
    pipeline = build(world)
    run(pipeline, world, 0)
    run(pipeline, world, 8)  # the second look
    run(pipeline, world, 15)

    def fail(_: object) -> dict[str, np.ndarray]:
        raise EngineError("The network broke.")

    answer, pipeline._detector.engine.answer = pipeline._detector.engine.answer, fail
    run(pipeline, world, 21)  # 0.4 s after the second look
    with pytest.raises(EngineError, match="broke"):
        run(pipeline, world, 22)
    pipeline._detector.engine.answer = answer
    assert len(run(pipeline, world, 23).poses) == 1  # and the next frame is as any


def test_reset_and_a_clock_set_back_begin_with_the_detector(build: Build) -> None:
    world = World(("wedge", pose(0, 0, 0.7)))
    pipeline = build(world)
    run(pipeline, world, 100)
    pipeline.reset()
    assert not run(pipeline, world, 101).detections[0].followed
    assert not run(pipeline, world, 50).detections[0].followed


def test_close_ends_the_thread() -> None:
    world = World(("wedge", pose(0, 0, 0.7)))
    pipeline = world.pipeline(CONFIG)
    for i in (0, 8, 16):
        run(pipeline, world, i)
    assert looks(pipeline) == 2
    assert any(t.name.startswith("detector") for t in threading.enumerate())
    pipeline.close()
    assert not any(t.name.startswith("detector") for t in threading.enumerate())


def frame_of(T: np.ndarray) -> Frame:
    return World(("wedge", T)).frame(depth=False)


@pytest.mark.parametrize("x", [0.0, 0.33, -0.33])
def test_enclose_is_the_box_of_the_mesh_within_the_image(x: float) -> None:
    T = pose(x, 0.02, 0.7)
    box = enclose(T, LIBRARY["wedge"], frame_of(pose(0, 0, 0.7)))
    pixels = project(se3.transform(T, MESHES["wedge"].vertices_m), K)
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    limits = [-0.5, -0.5], [SIZE_HW[1] - 0.5, SIZE_HW[0] - 0.5]
    expected = np.clip([low, high], *limits).ravel()
    assert box is not None
    np.testing.assert_allclose(box, expected, atol=0.04 * np.max(high - low))


def test_enclose_refuses_what_is_out_of_view() -> None:
    model, frame = LIBRARY["wedge"], frame_of(pose(0, 0, 0.7))
    assert enclose(pose(0, 0, 0.01), model, frame) is None  # partly behind the camera
    assert enclose(pose(0, 0, -0.7), model, frame) is None
    assert enclose(pose(2, 0, 0.7), model, frame) is None
    seen = [enclose(pose(x, 0, 0.7), model, frame) for x in np.linspace(0.3, 0.5, 60)]
    sizes = [np.prod(np.subtract(b[2:], b[:2])) for b in seen if b is not None]
    assert min(sizes) < (MIN_IN_VIEW + 0.1) * max(sizes)  # a quarter is enough
    assert seen[-1] is None


def test_a_detection_knows_whether_it_was_followed() -> None:
    assert not Detection("wedge", (0, 0, 1, 1), 0.5).followed
