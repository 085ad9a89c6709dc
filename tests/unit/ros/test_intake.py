"""Pairing, order and clock resets."""

import re

import pytest
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from heatnet_ros.ros.frames import Topics
from heatnet_ros.ros.intake import Intake
from heatnet_ros.ros.mailbox import Mailbox
from heatnet_ros.ros.node_config import NodeConfig
from heatnet_ros.ros.problems import Problems, Source
from heatnet_ros.ros.statistics import Statistics


class Box(Mailbox):
    """Remembers the stamps (ms) of all sets."""

    def __init__(self):
        super().__init__()
        self.stamps = []

    def put(self, item):
        stamp = item.color.header.stamp
        self.stamps.append(stamp.sec * 1000 + stamp.nanosec // 10**6)
        super().put(item)


class Desk:
    """An intake with a clock that is set by hand."""

    def __init__(self, depth="/depth", **config):
        self.publishers = 1  # of every topic
        self.now, self.errors, self.box, self.statistics = 0.0, [], Box(), Statistics()
        self.now_ns = 0  # the clock that stamps; 0: not heard of yet
        clock = lambda: self.now  # noqa: E731
        self.problems = Problems(self.errors.append, lambda _: None, clock)
        topics = Topics("/color", "/info", depth)
        self.intake = Intake(
            topics, NodeConfig(**config), self.box, self.problems, self.statistics,
            lambda _: self.publishers, lambda: self.now_ns, clock,
        )  # fmt: skip

    def frame(self, ms):
        self.intake.on_color(image(ms))
        self.intake.on_depth(image(ms))


def image(ms):
    sec, rest = divmod(ms, 1000)
    return Image(header=Header(stamp=Time(sec=sec, nanosec=rest * 10**6)))


@pytest.fixture
def desk():
    desk = Desk()
    desk.intake.on_camera_info(CameraInfo())
    return desk


def test_pairs_go_to_the_mailbox(desk):
    for ms in (5000, 5033, 5066):
        desk.frame(ms)
    assert desk.box.stamps == [5000, 5033, 5066] and desk.box.dropped == 2


def test_clock_set_back_far(desk):
    """Also when the queues are full of the future."""
    for ms in range(100_000, 101_000, 33):
        desk.intake.on_color(image(ms))
    for ms in range(2000, 2200, 33):
        desk.frame(ms)
    assert desk.box.stamps == list(range(2000, 2200, 33))


def test_clock_reset_seen_first_on_depth(desk):
    desk.frame(100_000)
    desk.intake.on_depth(image(1000))
    desk.intake.on_color(image(100_033))
    desk.box.stamps.clear()
    for ms in (1033, 1066, 1099):
        desk.frame(ms)
    assert desk.box.stamps[-2:] == [1066, 1099]


def test_a_frame_overtaken_on_its_way_does_not_replace_a_newer_one(desk):
    desk.frame(5033)
    desk.frame(5000)
    assert desk.box.stamps == [5033]


def test_losses_are_counted_while_running_and_after_depth_stopped(desk):
    desk.frame(5000)
    desk.intake.on_color(image(5033))
    desk.frame(5066)
    assert desk.statistics.values()["sync_losses"] == "1"
    for ms in range(6000, 6500, 25):
        desk.intake.on_color(image(ms))
    desk.intake.check()
    assert desk.statistics.values()["sync_losses"] == str(1 + 20 - NodeConfig().sync_queue)


def test_without_depth_every_colour_image_is_a_set():
    desk = Desk(depth=None)
    desk.intake.on_color(image(5000))
    assert desk.box.stamps == []  # no calibration yet
    desk.intake.on_camera_info(CameraInfo())
    desk.intake.on_color(image(5033))
    assert desk.box.stamps == [5033]


def test_five_seconds_without_depth_are_said_once_and_again_5_s_later(desk):
    for second in range(11):
        desk.now = float(second)
        desk.intake.on_color(image(1000 * second))
        desk.intake.check()
        expected = 0 if second <= 5 else 1
        assert len([e for e in desk.errors if "no depth image for 5 s" in e]) == expected, second
    desk.now = 11.0
    desk.intake.check()
    assert len([e for e in desk.errors if "no depth image" in e]) == 2


def test_the_age_of_the_calibration_is_told_while_images_come(desk):
    for second in range(8):
        desk.now = float(second)
        desk.frame(1000 * second)
        desk.intake.check()
    assert desk.intake.values()["camera_info_age_s"] == "7.0" and desk.box.stamps[-1] == 7000
    desk.now = 30.0
    assert desk.intake.values()["camera_info_age_s"] == "7.0", "no image needs it meanwhile"
    desk.intake.on_camera_info(CameraInfo())
    assert desk.intake.values()["camera_info_age_s"] == "0.0"


@pytest.mark.parametrize(("silent_s", "publishers", "kept"), [
    (4.0, 0, False),  # gone
    (4.0, 1, True),  # pauses, and may have told its calibration once for all
    (1.0, 0, True),  # its images still come
])  # fmt: skip
def test_the_calibration_of_a_camera_that_went_away_is_not_used_for_the_next(
    desk, silent_s, publishers, kept
):
    desk.frame(5000)
    desk.now, desk.publishers = silent_s, publishers
    desk.intake.check()
    desk.publishers = 1
    desk.box.stamps.clear()
    for second in range(10, 18):
        desk.now = float(second)
        desk.frame(1000 * second)
        desk.intake.check()
    assert bool(desk.box.stamps) == kept
    said = [error for error in desk.errors if "no CameraInfo for 5 s while images come" in error]
    assert bool(said) != kept
    desk.intake.on_camera_info(CameraInfo())
    desk.frame(18_000)
    assert desk.box.stamps[-1] == 18_000


def test_a_camera_that_has_just_begun_is_not_called_silent():
    """The node ran for long before: its first image is under way, not too large to arrive."""
    desk, said = Desk(), []
    desk.publishers = 0
    for second in range(20):
        desk.now = float(second)
        if second == 10:
            desk.publishers = 1
        desk.intake.check()
        said.append(str(desk.problems.present.get(Source.COLOR, "")))
    assert "nobody publishes" in said[9] and not any(said[10:15]), said
    assert "1 publisher(s), but nothing came" in said[17]


def test_a_camera_that_comes_back_has_time_for_its_calibration(desk):
    desk.frame(5000)
    desk.now, desk.publishers = 10.0, 0
    desk.intake.check()
    desk.errors.clear()
    desk.now, desk.publishers = 20.0, 1
    desk.intake.on_color(image(20_000))
    desk.intake.check()
    assert not [error for error in desk.errors if "CameraInfo" in error], desk.errors
    desk.now = 20.3
    desk.intake.on_camera_info(CameraInfo())
    desk.frame(20_033)
    assert desk.box.stamps[-1] == 20_033


@pytest.mark.parametrize("stamps", [[0] * 8, [5000, 5033, 5066, 5066, 5066, 5100]])
def test_stamps_that_stand_still_are_said_with_topic_and_remedy(stamps):
    desk = Desk(depth=None)
    for ms in stamps:
        desk.intake.on_color(image(ms))
    desk.intake.check()
    again = len(stamps) - len(set(stamps))
    (said,) = desk.errors
    assert f"/color: {again} of the last {len(stamps)} stamps are the one before" in said
    assert "Stamp each image" in said and list(desk.problems.present) == [Source.STAMPS]
    for ms in (6000, 6033):
        desk.intake.on_color(image(ms))
    desk.intake.check()
    assert not desk.problems.present


def test_losses_on_the_way_name_share_and_remedy():
    desk = Desk()
    for ms in range(5000, 5100, 25):
        desk.frame(ms)
    desk.intake.on_lost("/color", 2)
    desk.intake.check()
    assert desk.errors == [], "two of six may be the start"
    desk.frame(5200)
    desk.intake.on_lost("/color", 9)
    desk.intake.check()
    assert "/color: 9 of the last 10 messages were lost" in desk.errors[0]
    assert "fastdds_large_frames.xml" in desk.errors[0]
    # Fast DDS 2 reads the first, Fast DDS 3 the second
    assert "FASTRTPS_DEFAULT_PROFILES_FILE" in desk.errors[0]
    assert "FASTDDS_DEFAULT_PROFILES_FILE" in desk.errors[0]
    assert desk.statistics.values()["lost"] == "11"


@pytest.mark.parametrize("order", ["cd", "dc"])
def test_after_a_lost_depth_image_only_equal_stamps_are_paired(desk, monkeypatch, order):
    """Colour and depth of 17 ms period: a slop above half of it would stay one frame behind."""
    monkeypatch.setattr(desk.box, "put", lambda images: pairs.append(images))
    pairs = []
    for number in range(30):
        for stream in order:
            if stream == "c":
                desk.intake.on_color(image(5000 + 17 * number))
            elif number != 5:
                desk.intake.on_depth(image(5000 + 17 * number))
    assert len(pairs) == 29
    assert all(pair.color.header.stamp == pair.depth.header.stamp for pair in pairs)
    desk.intake.check()
    assert desk.errors == []


@pytest.mark.parametrize(("period_ms", "slop_s"), [(11, 0.008), (33, 0.02), (33, 0.0165)])
def test_slop_too_large_for_the_rate_is_said_and_over_when_the_camera_slows(period_ms, slop_s):
    desk = Desk(sync_slop_s=slop_s)
    for number in range(30):
        desk.frame(5000 + period_ms * number)
    desk.intake.check()
    assert len(desk.errors) == 1
    assert re.search(
        rf"/color: comes every {period_ms}\.0 ms.*sync_slop_s {slop_s}.*Set sync_slop_s below "
        rf"{period_ms / 2000:.4f}",
        desk.errors[0],
    )
    for number in range(40):
        desk.frame(8000 + 100 * number)
    desk.intake.check()
    assert desk.problems.present == {} and len(desk.errors) == 1


def test_no_word_on_the_slop_without_depth():
    desk = Desk(depth=None, sync_slop_s=0.1)
    for number in range(30):
        desk.intake.on_color(image(5000 + 20 * number))
    desk.intake.check()
    assert desk.errors == []


def test_a_bag_shorter_than_half_a_second_that_starts_again_does_not_silence_the_node(desk):
    """A jump back by 0.3 s: a few frames are taken for overtaken ones, then the clock is known."""
    for _ in range(3):
        for ms in range(5000, 5330, 33):
            desk.frame(ms)
    values = desk.statistics.values()
    assert int(values["clock_resets"]) >= 2
    assert desk.box.stamps.count(5297) == 3 and len(desk.box.stamps) >= 10 + 2 * 5


@pytest.mark.parametrize(
    ("stamp_ms", "topic", "pattern"),
    [
        (4990, "color", r"/color: .*backwards.*newest 5.033 s, then 4.990 s.*ignored.*one publ"),
        (4990, "depth", r"/depth: .*backwards.*newest 5.033 s, then 4.990 s.*ignored.*one publ"),
        (1000, "color", r"/color: .*backwards.*newest 5.033 s, then 1.000 s.*anew.*clock"),
        (1000, "depth", r"/depth: .*backwards.*newest 5.033 s, then 1.000 s.*anew.*clock"),
    ],
)
def test_stamps_that_go_backwards_are_said_and_over_when_they_rise(desk, stamp_ms, topic, pattern):
    for ms in (5000, 5033):
        desk.frame(ms)
    getattr(desk.intake, f"on_{topic}")(image(stamp_ms))
    desk.intake.check()
    assert len(desk.errors) == 1 and re.search(pattern, desk.errors[0]), desk.errors
    assert list(desk.problems.present) == [Source.STAMPS]
    for ms in range(6000, 6400, 33):
        desk.frame(ms)
    desk.intake.check()
    assert desk.problems.present == {} and len(desk.errors) == 1
    assert 6396 in desk.box.stamps


def test_every_frame_is_accounted_for():
    """Late calibration, lost depth, depth later than the next colour, overtaken, clock reset."""
    desk = Desk()
    desk.frame(5000)
    desk.frame(5033)
    assert desk.statistics.values()["no_camera_info"] == "2"
    desk.intake.on_camera_info(CameraInfo())
    desk.intake.on_color(image(5066))
    desk.intake.on_color(image(5100))
    desk.intake.on_depth(image(5066))
    desk.intake.on_depth(image(5100))
    desk.intake.on_color(image(5133))  # its depth is lost
    desk.frame(5166)
    desk.intake.on_color(image(5150))  # overtaken
    desk.intake.on_color(image(5200))  # the clock is set back before its depth comes
    for ms in range(1000, 2000, 33):
        desk.intake.on_color(image(ms))
    desk.intake.check()
    desk.frame(3000)
    desk.intake.on_color(image(3033))  # waits
    values = desk.statistics.values()
    assert desk.box.stamps == [5066, 5100, 5166, 3000]
    assert values["sync_losses"] == str(1 + 1 + len(range(1000, 2000, 33)))
    ends = [int(values[name]) for name in ("no_camera_info", "out_of_order", "sync_losses")]
    assert int(values["received"]) == sum(ends) + len(desk.box.stamps) + 1


@pytest.mark.parametrize("stamp", [Time(sec=-1), Time(sec=5, nanosec=4_294_967_295)])
@pytest.mark.parametrize("topic", ["color", "depth"])
def test_a_stamp_that_is_none_is_refused_and_moves_no_clock(desk, topic, stamp):
    """rclpy.time.Time takes neither: a pose with it would end the nodes that hear it."""
    desk.frame(5000)
    getattr(desk.intake, f"on_{topic}")(Image(header=Header(stamp=stamp)))
    assert f"/{topic}: the stamp is {stamp.sec} s, {stamp.nanosec} ns; expected" in desk.errors[0]
    desk.frame(5066)
    assert desk.box.stamps == [5000, 5066]
    assert desk.statistics.values()["clock_resets"] == "0"


def test_the_clock_of_the_stamps_is_watched_for_half_a_minute():
    """A camera at 90 Hz whose clock is 2 % too slow: told after ten seconds, not before."""
    desk = Desk(depth=None)
    for number in range(90 * 12):
        desk.now = number / 90
        desk.now_ns = round((1000 + desk.now) * 1e9)
        desk.intake.on_color(image(round(1000 * (1000 + 0.98 * desk.now))))
        if number == 90 * 9:
            assert desk.intake.values()["stamp_drift_ms_per_s"] == "none"
    values = desk.intake.values()
    assert float(values["stamp_drift_ms_per_s"]) == pytest.approx(20, abs=0.5)
    assert float(values["stamp_delay_ms"]) == pytest.approx(120, abs=5)


def test_no_word_on_the_clock_while_it_is_not_heard_of():
    desk = Desk(depth=None)
    for number in range(30):
        desk.now = number / 10
        desk.intake.on_color(image(5000 + 100 * number))
    assert desk.intake.values()["stamp_delay_ms"] == "none"


def test_what_somebody_else_explains_is_not_called_silence():
    desk = Desk(input_timeout_s=1.0, depth_timeout_s=1.0)
    desk.intake.explained = {"/color", "/info", "/depth"}
    desk.now = 2.0
    desk.intake.check()
    assert desk.errors == []
    desk.intake.explained = set()
    desk.intake.check()
    assert len(desk.errors) == 2, "colour and depth"
