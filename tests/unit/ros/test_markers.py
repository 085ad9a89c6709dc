import dataclasses

import numpy as np
import pytest
from fakes import LIBRARY, MESHES, pose
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from heatnet_ros.geometry.se3 import exp_so3, rotation_from_quaternion
from heatnet_ros.mesh import write_ply
from heatnet_ros.objects import ObjectLibrary
from heatnet_ros.ros.markers import MarkerBuilder, pose_to_message
from heatnet_ros.types import PoseEstimate

HEADER = Header(frame_id="camera")


def estimate(name, instance=0):
    return PoseEstimate(name, pose(0.1, 0.2, 0.9), 0.9, 1.0, 0.5, "test", instance)


def library_with_mesh(tmp_path, unit):
    path = tmp_path / "we dge.ply"
    write_ply(path, MESHES["wedge"])
    model = dataclasses.replace(LIBRARY["wedge"], mesh_path=path, mesh_unit=unit)
    return ObjectLibrary("one", {"wedge": model}, tmp_path)


@pytest.mark.parametrize("angle", [0.0, 1.0, 3.1, np.pi])
def test_pose_message_holds_the_same_rotation(angle):
    R = exp_so3(np.array([0.6, -0.64, 0.48]) * angle)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, (1.0, 2.0, 3.0)
    q = pose_to_message(T).orientation
    np.testing.assert_allclose(rotation_from_quaternion([q.x, q.y, q.z, q.w]), R, atol=1e-12)


@pytest.mark.parametrize(("unit", "scale"), [("m", 1.0), ("mm", 0.001)])
def test_mesh_is_a_file_uri_scaled_to_metres(tmp_path, unit, scale):
    builder = MarkerBuilder(library_with_mesh(tmp_path, unit))
    shape = builder.build((estimate("wedge"),), HEADER, 1.0).markers[0]
    assert shape.type == Marker.MESH_RESOURCE and shape.scale.x == scale
    assert shape.mesh_resource == f"file://{tmp_path}/we%20dge.ply"


def test_mesh_cuboid_axes_and_label_of_each_instance(tmp_path):
    markers = MarkerBuilder(library_with_mesh(tmp_path, "m")).build(
        (estimate("wedge"), estimate("wedge", 4)), HEADER, 1.0
    )
    parts = [f"wedge/{part}" for part in ("mesh", "cuboid", "axes", "label")]
    assert [(m.ns, m.id) for m in markers.markers] == [(p, i) for i in (0, 4) for p in parts]
    assert markers.markers[3].text == "wedge 0"


def test_without_mesh_the_cuboid_has_the_objects_bounds():
    shape = MarkerBuilder(LIBRARY).build((estimate("brick"),), HEADER, 1.0).markers[0]
    points = np.array([[p.x, p.y, p.z] for p in shape.points])
    assert shape.type == Marker.LINE_LIST and len(points) == 24
    np.testing.assert_allclose([points.min(0), points.max(0)], LIBRARY["brick"].bounds_m)
    lengths = np.linalg.norm(points[::2] - points[1::2], axis=1)
    np.testing.assert_allclose(np.sort(lengths), np.repeat([0.04, 0.06, 0.12], 4), atol=1e-9)


def test_lifetime_and_header():
    markers = MarkerBuilder(LIBRARY).build((estimate("brick", 3),), HEADER, 1.25).markers
    assert {(m.lifetime.sec, m.lifetime.nanosec) for m in markers} == {(1, 250_000_000)}
    assert {(m.header.frame_id, m.id) for m in markers} == {("camera", 3)}


def test_only_what_vanished_is_deleted_and_once():
    builder = MarkerBuilder(LIBRARY)
    builder.build((estimate("brick"), estimate("wedge", 1)), HEADER, 1.0)
    second = builder.build((estimate("brick"),), HEADER, 1.0).markers
    deleted = {(m.ns, m.id) for m in second if m.action == Marker.DELETE}
    assert deleted == {("wedge/cuboid", 1), ("wedge/axes", 1), ("wedge/label", 1)}
    third = builder.build((estimate("brick"),), HEADER, 1.0).markers
    assert all(m.action == Marker.ADD for m in third)


def shape_of(path):
    model = dataclasses.replace(LIBRARY["wedge"], mesh_path=path, mesh_unit="m")
    builder = MarkerBuilder(ObjectLibrary("one", {"wedge": model}, path.parent))
    return builder.build((estimate("wedge"),), HEADER, 1.0).markers[0]


@pytest.mark.parametrize("linked", [False, True])
def test_mesh_in_an_ament_share_folder_is_a_package_uri(tmp_path, monkeypatch, linked):
    """RViz may run on another machine, where the package lies elsewhere."""
    prefix = tmp_path / "install"
    share = prefix / "share" / "heatnet_ros"
    meshes, source = share / "config" / "objects", tmp_path / "source"
    for folder in (meshes, source, prefix / "share/ament_index/resource_index/packages"):
        folder.mkdir(parents=True)
    (prefix / "share/ament_index/resource_index/packages/heatnet_ros").touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/opt/ros/none:{prefix}")
    path = meshes / "we dge.ply"
    if linked:  # colcon build --symlink-install
        write_ply(source / "wedge.ply", MESHES["wedge"])
        path.symlink_to(source / "wedge.ply")
    else:
        write_ply(path, MESHES["wedge"])
    assert shape_of(path).mesh_resource == "package://heatnet_ros/config/objects/we%20dge.ply"
    outside = prefix / "share" / "no_package" / "wedge.ply"
    outside.parent.mkdir()
    write_ply(outside, MESHES["wedge"])
    assert shape_of(outside).mesh_resource == outside.as_uri()


@pytest.mark.parametrize("suffix", [".obj", ".stl", ".dae"])
def test_a_mesh_that_the_library_cannot_read_is_not_shown(tmp_path, suffix):
    path = tmp_path / f"wedge{suffix}"
    path.touch()
    assert shape_of(path).type == Marker.LINE_LIST
