"""Pairing of messages by their stamps."""

import pytest
from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from heatnet_ros.ros.sync import ApproximateTimeSynchronizer, SimpleFilter


@pytest.fixture
def pair():
    """Returns (colour, depth, groups): two sources and the list of synchronised stamps in ms."""
    color, depth, groups = SimpleFilter(), SimpleFilter(), []
    joined = ApproximateTimeSynchronizer([color, depth], 5, 0.02)
    joined.registerCallback(lambda a, b, tag: groups.append((ms(a), ms(b), tag)), "tag")
    return color, depth, groups


def image(stamp_ms):
    sec, rest = divmod(stamp_ms, 1000)
    return Image(header=Header(stamp=Time(sec=sec, nanosec=rest * 1_000_000)))


def ms(message):
    return message.header.stamp.sec * 1000 + message.header.stamp.nanosec // 1_000_000


def test_equal_stamps_are_paired_in_any_order_of_arrival(pair):
    color, depth, groups = pair
    color.signalMessage(image(5000))
    assert groups == []
    depth.signalMessage(image(5000))
    depth.signalMessage(image(5033))
    color.signalMessage(image(5033))
    assert groups == [(5000, 5000, "tag"), (5033, 5033, "tag")]


def test_slop_bounds_the_difference(pair):
    color, depth, groups = pair
    color.signalMessage(image(5000))
    depth.signalMessage(image(5020))
    assert groups == []
    color.signalMessage(image(5001))
    assert groups == [(5001, 5020, "tag")]


def test_every_message_is_used_once(pair):
    color, depth, groups = pair
    color.signalMessage(image(5000))
    depth.signalMessage(image(5001))
    depth.signalMessage(image(5002))
    assert groups == [(5000, 5001, "tag")]


def test_the_nearest_partner_is_taken(pair):
    color, depth, groups = pair
    for stamp in (4985, 4999, 5012):
        color.signalMessage(image(stamp))
    depth.signalMessage(image(5000))
    assert groups == [(4999, 5000, "tag")]


def test_a_full_queue_forgets_the_oldest(pair):
    color, depth, groups = pair
    for i in range(8):
        color.signalMessage(image(5000 + 100 * i))
    depth.signalMessage(image(5200))
    assert groups == []
    depth.signalMessage(image(5300))
    assert groups == [(5300, 5300, "tag")]


def test_it_goes_on_after_the_clock_was_set_back():
    color, depth, groups = SimpleFilter(), SimpleFilter(), []
    joined = ApproximateTimeSynchronizer([color, depth], 5, 0.02)
    joined.registerCallback(lambda a, b: groups.append(ms(a)))
    for stamp in (90000, 90100, 90200, 90300, 90400, 90500):
        color.signalMessage(image(stamp))
    color.signalMessage(image(1000))
    depth.signalMessage(image(1000))
    assert groups == [1000]


def test_the_lock_is_free_in_the_callback_and_after_one_that_raises():
    color, depth, seen = SimpleFilter(), SimpleFilter(), []

    def nested(a, b):
        seen.append(ms(a))
        if len(seen) == 1:
            color.signalMessage(image(6000))  # would deadlock inside the lock
            raise RuntimeError("user")

    ApproximateTimeSynchronizer([color, depth], 5, 0.02).registerCallback(nested)
    color.signalMessage(image(5000))
    with pytest.raises(RuntimeError, match="user"):
        depth.signalMessage(image(5000))
    depth.signalMessage(image(6000))
    assert seen == [5000, 6000]
