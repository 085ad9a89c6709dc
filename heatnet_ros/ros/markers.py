"""Poses -> visualization_msgs/MarkerArray: mesh, cuboid, axes, label; no stale ones in RViz."""

from __future__ import annotations

import colorsys
import itertools
import os
from pathlib import Path
from urllib.parse import quote

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Pose
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from heatnet_ros.geometry.se3 import quaternion_from_rotation
from heatnet_ros.objects import ObjectLibrary, ObjectModel
from heatnet_ros.types import FloatArray, PoseEstimate

_AXIS_COLORS = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def pose_to_message(T_a_b: FloatArray) -> Pose:
    """4x4 in metres -> geometry_msgs/Pose."""
    message = Pose()
    position, orientation = message.position, message.orientation
    position.x, position.y, position.z = map(float, T_a_b[:3, 3])
    quaternion = quaternion_from_rotation(T_a_b[:3, :3])
    orientation.x, orientation.y, orientation.z, orientation.w = map(float, quaternion)
    return message


class MarkerBuilder:
    """Builds the markers of each frame and the DELETE of those that were there before.

    Namespaces are ``<object>/mesh`` (where the library has one), ``<object>/cuboid``,
    ``<object>/axes`` and ``<object>/label``; the marker's id is the pose's instance.
    """

    def __init__(self, library: ObjectLibrary) -> None:
        self._library = library
        self._shown: set[tuple[str, int]] = set()
        names = list(library.objects)
        self._colors = {
            name: colorsys.hsv_to_rgb(i / len(names), 0.8, 0.9) for i, name in enumerate(names)
        }
        # looked up once: a file system call per marker and frame would be waste
        self._meshes = {name: _mesh_uri(model) for name, model in library.objects.items()}

    def build(
        self, poses: tuple[PoseEstimate, ...], header: Header, lifetime_s: float
    ) -> MarkerArray:
        """Markers of ``poses``; ``lifetime_s`` 0 keeps them until they are deleted."""
        markers: list[Marker] = []
        for pose in poses:
            model = self._library[pose.object_id]
            if self._meshes[pose.object_id] is not None:
                markers.append(self._mesh(pose))
            markers += [self._cuboid(pose), _axes(pose, model), _label(pose, model)]
        whole, part = divmod(round(lifetime_s * 1e9), 1_000_000_000)
        for marker in markers:
            marker.header = header
            marker.lifetime = Duration(sec=whole, nanosec=part)
        shown = {(marker.ns, marker.id) for marker in markers}
        for ns, number in sorted(self._shown - shown):
            markers.append(Marker(header=header, ns=ns, id=number, action=Marker.DELETE))
        self._shown = shown
        return MarkerArray(markers=markers)

    def clear(self) -> MarkerArray:
        """One DELETEALL, for when the node stops."""
        self._shown = set()
        return MarkerArray(markers=[Marker(action=Marker.DELETEALL)])

    def _mesh(self, pose: PoseEstimate) -> Marker:
        marker = _marker(pose, "mesh")
        marker.type = Marker.MESH_RESOURCE
        marker.mesh_resource = self._meshes[pose.object_id]
        scale = 1e-3 if self._library[pose.object_id].mesh_unit == "mm" else 1.0
        marker.scale.x = marker.scale.y = marker.scale.z = scale
        marker.color = self._color(pose, 0.6)
        return marker

    def _cuboid(self, pose: PoseEstimate) -> Marker:
        model = self._library[pose.object_id]
        marker = _marker(pose, "cuboid")
        marker.type, marker.scale.x = Marker.LINE_LIST, 0.02 * model.diameter_m
        marker.points = [_point(corner) for corner in _cuboid_edges(model.bounds_m)]
        marker.color = self._color(pose, 1.0)
        return marker

    def _color(self, pose: PoseEstimate, opacity: float) -> ColorRGBA:
        r, g, b = self._colors[pose.object_id]
        return ColorRGBA(r=r, g=g, b=b, a=opacity)


def _marker(pose: PoseEstimate, part: str) -> Marker:
    marker = Marker(ns=f"{pose.object_id}/{part}", id=pose.instance, action=Marker.ADD)
    marker.pose = pose_to_message(pose.T_camera_object)
    return marker


def _axes(pose: PoseEstimate, model: ObjectModel) -> Marker:
    marker = _marker(pose, "axes")
    marker.type, marker.scale.x = Marker.LINE_LIST, 0.03 * model.diameter_m
    for axis, (r, g, b) in enumerate(_AXIS_COLORS):
        marker.points += [Point(), _point(np.eye(3)[axis] * 0.6 * model.diameter_m)]
        marker.colors += [ColorRGBA(r=r, g=g, b=b, a=1.0)] * 2
    return marker


def _label(pose: PoseEstimate, model: ObjectModel) -> Marker:
    marker = _marker(pose, "label")
    # above the object as the camera sees it: at its origin the mesh would hide the text
    marker.pose.position.y -= 0.6 * model.diameter_m
    marker.type, marker.text = Marker.TEXT_VIEW_FACING, f"{pose.object_id} {pose.instance}"
    marker.scale.z = 0.03
    marker.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
    return marker


def _mesh_uri(model: ObjectModel) -> str | None:
    """``package://`` where RViz, perhaps on another machine, finds the package; else ``file://``.

    None without a mesh that the library itself could read: nobody checked another one's unit.
    """
    path: Path | None = model.mesh_path
    if path is None or path.suffix.lower() != ".ply" or not path.exists():
        return None
    # the link, where there is one (colcon --symlink-install), lies in the package, its target not
    for candidate in (path.absolute(), path.resolve()):
        for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
            share = Path(prefix).absolute() / "share"
            if not prefix or not candidate.is_relative_to(share):
                continue
            package, *inside = candidate.relative_to(share).parts
            if (share / "ament_index" / "resource_index" / "packages" / package).exists():
                return f"package://{package}/{quote('/'.join(inside))}"
    return path.resolve().as_uri()


def _cuboid_edges(bounds_m: FloatArray) -> list[FloatArray]:
    """The 12 edges of a box as 24 points."""
    points: list[FloatArray] = []
    corners = list(itertools.product((0, 1), repeat=3))
    for a, b in itertools.combinations(corners, 2):
        if sum(i != j for i, j in zip(a, b, strict=True)) == 1:
            points += [bounds_m[list(c), range(3)] for c in (a, b)]
    return points


def _point(xyz_m: FloatArray) -> Point:
    return Point(x=float(xyz_m[0]), y=float(xyz_m[1]), z=float(xyz_m[2]))
