import os

import pytest
import rclpy
from bench import Bench

from heatnet_ros.ros.tool_nodes import use_large_frames_profile


@pytest.fixture(scope="session")
def ros():
    """This process is the camera: it needs the profile, the processes it starts must not get it."""
    before = dict(os.environ)
    use_large_frames_profile()
    rclpy.init()
    rclpy.create_node("reads_the_profile").destroy_node()
    for name in set(os.environ) - set(before):
        del os.environ[name]
    yield
    rclpy.try_shutdown()


@pytest.fixture
def bench(ros):
    bench = Bench()
    yield bench
    bench.stop()
