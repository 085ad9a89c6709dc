"""Recordings: there and back, chosen objects, true boxes, what is damaged."""

from pathlib import Path

import numpy as np
import pytest
from fakes import LIBRARY, World, pose

from heatnet_ros.bench.recording import (
    DEPTH_STEP_M,
    Recording,
    load_recording,
    read_scene,
    save_recording,
)
from heatnet_ros.errors import ConfigError, DataError


def record(*worlds: World) -> Recording:
    frames = tuple(world.frame(stamp_ns=i * 33_000_000) for i, world in enumerate(worlds))
    return Recording(frames, tuple(tuple(world.truth) for world in worlds), "a test")


@pytest.fixture
def recording() -> Recording:
    both = World(("wedge", pose(-0.1, 0, 0.7)), ("brick", pose(0.2, 0.1, 0.8)))
    return record(both, World(("brick", pose(0.15, 0.1, 0.8))))


def test_there_and_back(recording: Recording, tmp_path: Path) -> None:
    save_recording(tmp_path / "a" / "r.npz", recording)
    again = load_recording(tmp_path / "a" / "r.npz")
    assert again.source == "a test"
    assert [[name for name, _ in poses] for poses in again.poses] == [["wedge", "brick"], ["brick"]]
    for before, after in zip(recording.frames, again.frames, strict=True):
        np.testing.assert_array_equal(before.rgb, after.rgb)
        np.testing.assert_array_equal(before.K, after.K)
        np.testing.assert_allclose(before.depth_m, after.depth_m, atol=0.51 * DEPTH_STEP_M)
        assert before.stamp_ns == after.stamp_ns
    for before, after in zip(recording.poses, again.poses, strict=True):
        for (_, a), (_, b) in zip(before, after, strict=True):
            np.testing.assert_array_equal(a, b)


def test_frames_without_depth_stay_without(tmp_path: Path) -> None:
    frame = World(("wedge", pose(0, 0, 0.7))).frame(depth=False)
    save_recording(tmp_path / "r.npz", Recording((frame,), ((),), "colour"))
    again = load_recording(tmp_path / "r.npz")
    assert again.frames[0].depth_m is None and again.poses == ((),)


def test_the_objects_seen_most_are_chosen(recording: Recording) -> None:
    assert recording.choose(1) == ("brick",)
    assert recording.choose(2) == ("brick", "wedge")
    with pytest.raises(ConfigError, match=r"3 were asked for, a test shows 2 \(brick, wedge\)"):
        recording.choose(3)


def test_boxes_are_those_of_the_chosen(recording: Recording) -> None:
    boxes = recording.boxes(LIBRARY, ("brick",))
    assert [len(found) for found in boxes.values()] == [1, 1]
    world = World(("wedge", pose(-0.1, 0, 0.7)), ("brick", pose(0.2, 0.1, 0.8)))
    expected = world.detections()[1].bbox_xyxy_px
    (box,) = boxes[0]
    assert box.object_id == "brick"
    np.testing.assert_allclose(box.bbox_xyxy_px, expected, atol=5.0)


@pytest.mark.parametrize("damage", [b"", b"PK no zip", None])
def test_a_damaged_recording_is_told(
    recording: Recording, tmp_path: Path, damage: bytes | None
) -> None:
    path = tmp_path / "r.npz"
    save_recording(path, recording)
    path.write_bytes(path.read_bytes()[:5000] if damage is None else damage)
    with pytest.raises(DataError, match=r"r\.npz cannot be read: .*records it again"):
        load_recording(path)


def test_a_folder_that_is_no_scene_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no BOP scene with ground truth"):
        read_scene(tmp_path)
