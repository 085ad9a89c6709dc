import os
from pathlib import Path

import pytest
import rclpy
from bench import Bench

PROFILE = Path(__file__).parents[2] / "config" / "fastdds_large_frames.xml"


@pytest.fixture(scope="session")
def ros():
    """This process is the camera: it needs the profile, the processes it starts must not get it."""
    os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(PROFILE)
    rclpy.init()
    rclpy.create_node("reads_the_profile").destroy_node()
    del os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"]
    yield
    rclpy.try_shutdown()


@pytest.fixture
def bench(ros):
    bench = Bench()
    yield bench
    bench.stop()
