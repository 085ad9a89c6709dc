"""Keep MoveIt's planning scene in step with the poses: one CollisionObject per instance.

    python3 collision_objects.py --objects config/objects/demo.yaml [--node /pose_node]

Follows the node's markers, which name every instance and say when it is lost, and publishes
moveit_msgs/CollisionObject on /collision_object: ADD with the mesh of the object library (its box
where the mesh is not there), MOVE when an instance has moved by 5 mm or 5 degrees, REMOVE when it
is lost or the node stops. Ids are OBJECT_INSTANCE, mug_0. The poses are in the camera's frame, so
TF must connect it with the planning frame. End this node before you attach an object to the
gripper: while it is carried the camera still sees it, and it would be added again.
"""

import argparse
import contextlib
import sys
import time
from pathlib import Path

import numpy as np
import rclpy
from geometry_msgs.msg import Point, Pose
from rclpy.executors import ExternalShutdownException
from visualization_msgs.msg import Marker, MarkerArray

from heatnet_ros.errors import HeatnetError
from heatnet_ros.objects import load_objects
from heatnet_ros.resources import find_resource

try:
    from moveit_msgs.msg import CollisionObject
    from shape_msgs.msg import Mesh, MeshTriangle, SolidPrimitive
except ImportError as error:
    sys.exit(
        f"{error}. MoveIt's messages are needed: sudo apt install ros-$ROS_DISTRO-moveit-msgs "
        "(they are not on PyPI), then source the ROS installation."
    )

MOVED_M, MOVED_RAD = 0.005, np.radians(5)
FORGET_S = 3.0  # a node that was killed deletes no markers


def describe_shape(model):
    """ObjectModel -> the geometry of a CollisionObject, in the object's frame, metres."""
    mesh = model.load_mesh(with_texture=False)
    if mesh is None:
        low, high = model.bounds_m
        box = SolidPrimitive(type=SolidPrimitive.BOX, dimensions=(high - low).tolist())
        centre = Pose()
        centre.position = to_point((low + high) / 2)
        return {"primitives": [box], "primitive_poses": [centre]}
    triangles = [MeshTriangle(vertex_indices=face.tolist()) for face in mesh.faces]
    shape = Mesh(triangles=triangles, vertices=[to_point(v) for v in mesh.vertices_m])
    return {"meshes": [shape], "mesh_poses": [Pose()]}


def to_point(xyz_m):
    """Three numbers -> geometry_msgs/Point."""
    return Point(x=float(xyz_m[0]), y=float(xyz_m[1]), z=float(xyz_m[2]))


def has_moved(a, b):
    """Whether two geometry_msgs/Pose differ by more than the limits."""
    p, q = ([getattr(pose.position, axis) for axis in "xyz"] for pose in (a, b))
    r, s = ([getattr(pose.orientation, axis) for axis in "xyzw"] for pose in (a, b))
    angle = 2 * np.arccos(min(abs(float(np.dot(r, s))), 1.0))
    return np.linalg.norm(np.subtract(p, q)) > MOVED_M or angle > MOVED_RAD


class Scene:
    """What MoveIt has been told. ``update`` and ``forget_old`` return what it must be told now."""

    def __init__(self, library):
        self._shapes = {name: describe_shape(model) for name, model in library.objects.items()}
        self._told = {}  # id -> the CollisionObject of its last ADD or MOVE
        self._seen_s = {}  # id -> when it was last seen

    def update(self, markers, now_s):
        """visualization_msgs/MarkerArray -> list of CollisionObject."""
        changes = []
        for marker in markers:
            if marker.action == Marker.DELETEALL:
                changes += [self._remove(name) for name in list(self._told)]
            # every instance has its axes, and they stand where its pose is
            name, _, part = marker.ns.rpartition("/")
            if part != "axes" or name not in self._shapes:
                continue
            identity = f"{name}_{marker.id}"
            if marker.action == Marker.ADD:
                self._seen_s[identity] = now_s
                changes += self._place(identity, name, marker)
            elif marker.action == Marker.DELETE and identity in self._told:
                changes.append(self._remove(identity))
        return changes

    def forget_old(self, now_s):
        """REMOVE for everything that was not seen for FORGET_S."""
        old = [i for i in self._told if now_s - self._seen_s[i] > FORGET_S]
        return [self._remove(identity) for identity in old]

    def start_again(self):
        """Tell everything anew: a move_group that has just started knows nothing."""
        self._told.clear()

    def _place(self, identity, name, marker):
        told = self._told.get(identity)
        if told is not None and not has_moved(told.pose, marker.pose):
            return []
        change = CollisionObject(header=marker.header, id=identity, pose=marker.pose)
        if told is None:
            change.operation, change.type.key = CollisionObject.ADD, name
            for field, value in self._shapes[name].items():
                setattr(change, field, value)
        else:
            change.operation = CollisionObject.MOVE
        self._told[identity] = change
        return [change]

    def _remove(self, identity):
        header = self._told.pop(identity).header
        return CollisionObject(header=header, id=identity, operation=CollisionObject.REMOVE)


def main():
    """Follow the markers until Ctrl-C."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=Path, default="config/objects/demo.yaml")
    parser.add_argument("--node", default="/pose_node", help="whose markers (/pose_node)")
    args = parser.parse_args(rclpy.utilities.remove_ros_args(sys.argv)[1:])
    try:
        scene = Scene(load_objects(find_resource(args.objects, "Object library")))
    except HeatnetError as error:
        sys.exit(str(error))
    rclpy.init()
    node = rclpy.create_node("collision_objects")
    publisher = node.create_publisher(CollisionObject, "/collision_object", 50)
    listeners = 0

    def tell(changes):
        for change in changes:
            publisher.publish(change)

    def check():
        nonlocal listeners
        count = publisher.get_subscription_count()
        if count > listeners:
            scene.start_again()
        listeners = count
        tell(scene.forget_old(time.monotonic()))

    def follow(message):
        if listeners:
            tell(scene.update(message.markers, time.monotonic()))

    node.create_subscription(MarkerArray, f"{args.node}/markers", follow, 10)
    node.create_timer(0.5, check)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)


if __name__ == "__main__":
    main()
