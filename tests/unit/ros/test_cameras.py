"""Presets of cameras."""

import pytest

from heatnet_ros.ros.cameras import CAMERAS

NODE_TOPICS = ["color/image_raw", "color/camera_info", "depth/image_raw"]


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_topics_are_absolute_names(camera):
    topics = camera.topics()
    assert list(topics) == NODE_TOPICS
    for topic in topics.values():
        assert topic.startswith("/") and "//" not in topic and not topic.endswith("/")


@pytest.mark.parametrize("prefix", ["/left/left", "left/left", "/left/left/"])
def test_another_prefix_replaces_the_driver_s(prefix):
    topics = CAMERAS["realsense"].topics(prefix)
    assert topics["depth/image_raw"] == "/left/left/aligned_depth_to_color/image_raw"
    assert CAMERAS["kinect"].topics("k4a")["color/image_raw"] == "/k4a/rgb/image_raw"


def test_the_synthetic_camera_publishes_what_its_preset_names():
    camera = pytest.importorskip("heatnet_ros.ros.synthetic_camera", exc_type=ImportError)
    topics = CAMERAS["synthetic"].topics()
    published = [camera.TOPICS.color, camera.TOPICS.camera_info, camera.TOPICS.depth]
    assert [topics[name] for name in NODE_TOPICS] == published
    # where RViz's depth cloud looks for it
    assert camera.TOPICS.depth_info == "/camera/camera/aligned_depth_to_color/camera_info"


def test_only_a_zed_is_rectified():
    assert [name for name, camera in CAMERAS.items() if camera.rectified] == ["zed"]
