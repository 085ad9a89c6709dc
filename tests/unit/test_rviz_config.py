"""config/pose.rviz against RViz's own names: RViz is not on PyPI and ignores what it does not know.

The tables are the classes and properties of rviz_default_plugins of ROS 2 Jazzy (branch jazzy of
ros2/rviz: plugins_description.xml and the constructors of the displays).
"""

from pathlib import Path

import yaml

from heatnet_ros.objects import load_objects
from heatnet_ros.ros.cameras import CAMERAS

ROOT = Path(__file__).resolve().parents[2]
CONFIG = yaml.safe_load((ROOT / "config" / "pose.rviz").read_text())
MANAGER = CONFIG["Visualization Manager"]

EVERY_DISPLAY = {"Class", "Name", "Enabled", "Value"}
QOS = {"Depth", "History Policy", "Reliability Policy", "Durability Policy", "Value"}
DISPLAYS = {
    "rviz_common/Group": {"Displays"},
    "rviz_default_plugins/Axes": {"Reference Frame", "Length", "Radius"},
    "rviz_default_plugins/MarkerArray": {"Namespaces", "Topic"},
    "rviz_default_plugins/Image": {
        *("Topic", "Normalize Range", "Min Value", "Max Value", "Median window"),
    },
    "rviz_default_plugins/PoseWithCovariance": {
        *("Topic", "Shape", "Color", "Alpha", "Shaft Length", "Shaft Radius", "Head Length"),
        *("Head Radius", "Axes Length", "Axes Radius", "Covariance"),
    },
    "rviz_default_plugins/DepthCloud": {
        *("Reliability Policy", "Topic Filter", "Depth Map Topic", "Depth Map Transport Hint"),
        *("Color Image Topic", "Color Transport Hint", "Queue Size", "Auto Size"),
        *("Occlusion Compensation", "Selectable", "Style", "Size (m)", "Size (Pixels)", "Alpha"),
        *("Decay Time", "Position Transformer", "Color Transformer"),
    },
}
COVARIANCE = {
    "Position": {"Value", "Color", "Alpha", "Scale"},
    "Orientation": {"Value", "Frame", "Color Style", "Color", "Alpha", "Offset", "Scale"},
}
# value -> key: what the enumerations of these properties offer
CHOICES = {
    "Shape": {"Arrow", "Axes"},
    "Style": {"Points", "Squares", "Flat Squares", "Spheres", "Boxes", "Tiles"},
    "Color Style": {"Unique", "RGB"},
    "Frame": {"Local", "Fixed"},
    "Color Transformer": {"RGB8", "RGBF32", "Intensity", "AxisColor", "FlatColor"},
    "History Policy": {"Keep Last", "Keep All", "System Default", "Unknown"},
    "Durability Policy": {"Volatile", "Transient Local", "System Default"},
}
TOOLS = {"Interact", "MoveCamera", "Select", "FocusCamera", "Measure"}
# outputs of pose_node that are no topic per object
OUTPUTS = {"/pose_node/markers", "/pose_node/overlay"}


def displays(entries=None):
    """All displays, those in groups too."""
    for entry in MANAGER["Displays"] if entries is None else entries:
        yield entry
        yield from displays(entry.get("Displays", []))


def strings(value, key=None):
    """(key, text) of every text in a tree."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from strings(part, name)
    elif isinstance(value, list):
        for part in value:
            yield from strings(part, key)
    elif isinstance(value, str):
        yield key, value


def test_rviz_knows_every_display_and_property():
    for display in displays():
        known = DISPLAYS[display["Class"]] | EVERY_DISPLAY
        assert set(display) <= known, (display["Name"], set(display) - known)
        if display["Class"] == "rviz_default_plugins/PoseWithCovariance":
            for part, keys in COVARIANCE.items():
                assert set(display["Covariance"][part]) <= keys
        if isinstance(display.get("Topic"), dict):
            assert set(display["Topic"]) <= QOS | {"Filter size"}
    for tool in MANAGER["Tools"]:
        package, name = tool["Class"].split("/")
        assert package == "rviz_default_plugins" and name in TOOLS
    for panel in CONFIG["Panels"]:
        assert panel["Class"] in {"rviz_common/Displays", "rviz_common/Views"}


def test_rviz_knows_every_choice():
    for key, value in strings(MANAGER["Displays"]):
        assert value in CHOICES.get(key, {value}), (key, value)


def test_it_opens_with_image_cloud_markers_and_poses():
    shown = {d["Class"].split("/")[1] for d in displays() if d["Enabled"]}
    assert {"Image", "DepthCloud", "MarkerArray", "PoseWithCovariance"} <= shown


def test_topics_are_those_of_the_node_and_of_a_realsense():
    camera = CAMERAS["realsense"].topics()
    objects = load_objects(ROOT / "config" / "objects" / "demo.yaml").objects
    poses = {f"/pose_node/pose_with_covariance/{name}" for name in objects}
    topics = {text for _, text in strings(MANAGER["Displays"]) if text.startswith("/")}
    assert poses <= topics, "a demo object without its display"
    known = {camera["color/image_raw"], camera["depth/image_raw"]} | OUTPUTS | poses
    assert topics <= known, topics - known
    assert MANAGER["Global Options"]["Fixed Frame"] == CAMERAS["realsense"].frame_id


def test_images_of_the_camera_are_received_best_effort_and_the_overlay_reliably():
    """Best effort matches any camera; the overlay is larger than the node's shared memory."""
    for display in displays():
        if display["Class"].endswith("/Image"):
            own = display["Topic"]["Value"].startswith("/pose_node/")
            assert display["Topic"]["Reliability Policy"] == ("Reliable" if own else "Best Effort")
        if display["Class"].endswith("/DepthCloud"):
            assert display["Reliability Policy"] == "Best effort"  # so it is spelt there
