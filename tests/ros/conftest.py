import importlib
import importlib.util
import os
import shutil
import sys

import message_packages
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


@pytest.fixture(scope="session")
def extra_messages(tmp_path_factory):
    """tf2_msgs and vision_msgs: as installed, else built here, as PyPI has neither.

    The value is the folder that another process needs: python/ to import, lib/ to load.
    """
    missing = [p for p in message_packages.DEFINITIONS if importlib.util.find_spec(p) is None]
    folder = tmp_path_factory.mktemp("messages")
    for package in missing:
        if shutil.which("g++") is None or importlib.util.find_spec("rosidl_generator_py") is None:
            pytest.skip(
                f"{package} is not installed, nor g++ and the rosidl generators to build it"
            )
        message_packages.build(package, folder)
        message_packages.load(package, folder)
    sys.path.insert(0, str(folder / "python"))
    importlib.invalidate_caches()
    yield folder
    sys.path.remove(str(folder / "python"))
