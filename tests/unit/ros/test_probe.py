"""What the doctor's listener reads without a network: stamps of raw messages, QoS that fits."""

import pytest
from builtin_interfaces.msg import Time
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from heatnet_ros.ros.probe import find_misfit, read_stamp_ns

RELIABLE, BEST_EFFORT = QoSReliabilityPolicy.RELIABLE, QoSReliabilityPolicy.BEST_EFFORT
LATCHED, VOLATILE = QoSDurabilityPolicy.TRANSIENT_LOCAL, QoSDurabilityPolicy.VOLATILE


@pytest.mark.parametrize("kind", [Image, CompressedImage, CameraInfo])
@pytest.mark.parametrize("stamp", [(0, 0), (1_700_000_000, 999_999_999), (-2, 5)])
def test_the_stamp_of_a_raw_message(kind, stamp):
    header = Header(stamp=Time(sec=stamp[0], nanosec=stamp[1]), frame_id="camera")
    data = serialize_message(kind(header=header))
    assert read_stamp_ns(data) == stamp[0] * 1_000_000_000 + stamp[1]


@pytest.mark.parametrize(
    ("offered", "asked", "policy"),
    [
        ((RELIABLE, VOLATILE), (BEST_EFFORT, VOLATILE), ""),
        ((BEST_EFFORT, VOLATILE), (BEST_EFFORT, VOLATILE), ""),
        ((BEST_EFFORT, VOLATILE), (RELIABLE, VOLATILE), "RELIABILITY"),
        ((RELIABLE, VOLATILE), (RELIABLE, LATCHED), "DURABILITY"),
        ((RELIABLE, LATCHED), (BEST_EFFORT, VOLATILE), ""),
    ],
)
def test_qos_that_does_not_fit_is_named(offered, asked, policy):
    profiles = [QoSProfile(depth=5, reliability=r, durability=d) for r, d in (offered, asked)]
    assert find_misfit(*profiles) == policy
