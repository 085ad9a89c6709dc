"""What is said of a topic, by what was seen of it."""

import dataclasses

import pytest

from heatnet_ros.checks.finding import Level, from_error, warning, worst
from heatnet_ros.checks.streams import (
    Stream,
    check_arrival,
    check_pairs,
    check_publishers,
    check_stamps,
    count_lost,
)
from heatnet_ros.errors import ConfigError

MS = 1_000_000
INFO = "sensor_msgs/msg/CameraInfo"
IMAGE = "sensor_msgs/msg/Image"


def stream(stamps_ms, delay_ms=5.0, **fields):
    fields = {"publishers": [("/camera", IMAGE)], "size_bytes": 921_600, "seconds": 3.0} | fields
    made = Stream("/color", IMAGE, **fields)
    for ms in stamps_ms:
        made.times.add(ms * MS, ms / 1e3, round((ms + delay_ms) * MS))
    return made


STEADY = range(0, 3000, 100)


def test_a_good_stream():
    good = stream(STEADY)
    assert not list(check_publishers(good))
    found = [*check_arrival(good), *check_stamps(good), *check_pairs(good, stream(STEADY), 0.008)]
    assert worst(found) is Level.OK and len(found) == 3
    assert "10.0 Hz, 0.92 MB each, none lost" in found[0].evidence


def test_silence_names_what_there_is_instead():
    [found] = check_arrival(stream([], publishers=[], alike=["/cam/rgb"]))
    assert found.level is Level.ERROR and "nobody publishes" in found.evidence
    assert "/cam/rgb" in found.remedy
    [found] = check_arrival(stream([]))
    assert "1 publisher(s), but nothing came for 3 s" in found.evidence
    assert "fastdds_large_frames.xml" in found.remedy
    info = dataclasses.replace(stream([], publishers=[("/camera", INFO)]), type_name=INFO)
    [found] = check_arrival(info)
    assert "1 publisher(s)" in found.evidence
    assert "fastdds" not in found.remedy, "it is small"


def test_silent_depth_beside_colour_is_not_aligned_yet():
    silent = stream([], publishers=[], alike=["/cam/aligned_depth_to_color/image_raw"])
    [found] = check_arrival(silent, stream(STEADY))
    assert found.level is Level.ERROR and "expected depth aligned to /color" in found.evidence
    assert "align_depth.enable:=true" in found.remedy
    assert found.remedy.endswith("aligned are: /cam/aligned_depth_to_color/image_raw.")
    [found] = check_arrival(stream([], publishers=[]), stream([]))
    assert "Start the camera" in found.remedy, "colour does not come either"


@pytest.mark.parametrize(
    ("size_bytes", "remedy"), [(921_600, "fastdds_large_frames.xml"), (90_000, "cable")]
)
def test_loss_on_the_way(size_bytes, remedy):
    [found] = check_arrival(stream(STEADY, lost=10, size_bytes=size_bytes))
    assert found.level is Level.ERROR and "10 of the last 40" in found.evidence
    assert remedy in found.remedy


def test_a_camera_that_leaves_frames_out_is_not_the_network():
    [found] = check_arrival(stream([ms for i, ms in enumerate(STEADY) if i % 4]))
    assert found.level is Level.WARNING and "exposure" in found.remedy
    assert "24% are missing" in found.evidence  # 7 of 29: the first is not known to be missing


def test_an_image_whose_camera_info_came_was_lost():
    color = stream([ms for ms in STEADY if ms not in (500, 900)])
    assert count_lost(color, stream(STEADY)) == 2
    assert count_lost(stream([]), stream(STEADY)) == 0
    late = stream([ms + 30 for ms in STEADY])
    assert count_lost(late, stream(STEADY)) == 0, "stamps of their own tell nothing"


def test_clocks_that_disagree():
    [found] = check_stamps(stream(STEADY, delay_ms=4000))
    assert found.level is Level.WARNING and "4.000 s behind" in found.evidence
    assert "use_sim_time" in found.remedy
    [found] = check_stamps(stream(STEADY, delay_ms=-2000))
    assert "2.000 s ahead of" in found.evidence


def test_stamps_of_two_cameras():
    found, *_ = check_stamps(stream([0, 100, 50, 200, 150, 150]))
    assert "go backwards 2 times and repeat 1 times in 6" in found.evidence


def test_a_driver_that_does_not_stamp():
    [found] = check_stamps(stream([0, 0, 0]))
    assert found.level is Level.ERROR and found.evidence == "all stamps are 0"


def test_half_of_the_depth_images():
    [found] = check_pairs(stream(STEADY), stream(range(0, 3000, 200)), 0.008)
    assert found.level is Level.WARNING and "enable_sync" in found.remedy


def test_slop_of_half_a_period():
    slop, pairs = check_pairs(stream(STEADY), stream(STEADY), 0.06)
    assert slop.level is Level.ERROR and "Set sync_slop_s below 0.0500" in slop.remedy
    assert pairs.level is Level.OK


def test_streams_of_other_times():
    [found] = check_pairs(stream(STEADY), stream(range(10_000, 11_000, 100)), 0.008)
    assert found.level is Level.ERROR and "differ by -8.000 s" in found.evidence


def test_a_message_becomes_a_finding_of_one_line():
    found = from_error(ConfigError("/depth: all 3.5 m\nare 0. Check the range. Or else."))
    assert (found.what, found.evidence) == ("/depth", "all 3.5 m are 0")
    assert found.remedy == "Check the range. Or else."
    assert found.line == "error    /depth: all 3.5 m are 0. Check the range. Or else."
    assert worst([found, warning("a", "b", "C.")]) is Level.ERROR and worst([]) is Level.OK
    assert found.to_json()["level"] == "error"
