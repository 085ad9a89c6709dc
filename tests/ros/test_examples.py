"""The examples as a user runs them, over real DDS."""

import importlib.util
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import rclpy
from bench import FRAME, TRUTH, Spinner
from fakes import LIBRARY, World
from geometry_msgs.msg import PoseWithCovarianceStamped
from std_msgs.msg import Header

from heatnet_ros.geometry import se3
from heatnet_ros.objects import load_objects, save_objects
from heatnet_ros.ros.markers import MarkerBuilder, pose_to_message
from heatnet_ros.ros.messages import ns_to_stamp
from heatnet_ros.types import PoseEstimate

ROOT = Path(__file__).resolve().parents[2]
WAIT = ROOT / "examples" / "wait_for_stable_pose.py"
COLLISION = ROOT / "examples" / "collision_objects.py"
ROS_ARGS = ("--ros-args", "-r", "__node:=waiting")
STILL = TRUTH[2][1]
needs_moveit = pytest.mark.skipif(
    importlib.util.find_spec("moveit_msgs") is None,
    reason="moveit_msgs is not installed and not on PyPI: apt install ros-jazzy-moveit-msgs",
)


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(path, *arguments):
    return subprocess.Popen(
        [sys.executable, str(path), *arguments],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


class Publisher:
    """Publishes poses of one object at 30 Hz in a thread of its own until it is stopped."""

    def __init__(self, name, poses, sigma_m=3e-4, sigma_rad=3e-3, age_s=0.0):
        """poses: image number -> the 4x4 transforms seen in it."""
        self.spinner = Spinner(rclpy.create_node("stand_in", namespace="/example"))
        self._publisher = self.spinner.node.create_publisher(
            PoseWithCovarianceStamped, f"pose_node/pose_with_covariance/{name}", 50
        )
        self._poses, self._age_s = poses, age_s
        self._covariance = np.diag([sigma_m**2] * 3 + [sigma_rad**2] * 3).ravel().tolist()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        number = 0
        while not self._over.wait(1 / 30):
            stamp = ns_to_stamp(time.time_ns() - round(self._age_s * 1e9))
            for T in self._poses(number):
                message = PoseWithCovarianceStamped(header=Header(stamp=stamp, frame_id=FRAME))
                message.pose.pose = pose_to_message(T)
                message.pose.covariance = self._covariance
                self._publisher.publish(message)
            number += 1

    def stop(self):
        self._over.set()
        self._thread.join()
        self.spinner.stop()


@pytest.fixture
def publish(ros):
    running = []

    def start_one(*arguments, **options):
        running.append(Publisher(*arguments, **options))

    yield start_one
    for publisher in running:
        publisher.stop()


def run_wait(*options, timeout="4"):
    process = start(WAIT, "brick", "--node", "/example/pose_node", "--timeout", timeout, *options)
    return process.communicate(timeout=60)[0], process.returncode


def shifted(T, x_m):
    moved = T.copy()
    moved[0, 3] += x_m
    return moved


def test_a_still_object_is_printed(publish):
    publish("brick", lambda _: [STILL])
    output, code = run_wait(timeout="30")
    assert code == 0, output
    x, y, z = (float(v) for v in output.split("position")[1].split()[:3])
    assert np.allclose([x, y, z], STILL[:3, 3], atol=1e-4) and FRAME in output
    assert "within 0.6 mm" in output, output


@pytest.mark.parametrize(
    ("poses", "options"),
    [
        # 1 mm further in each image: the fifth is 4 mm from the first
        (lambda n: [shifted(STILL, 0.001 * n)], {}),
        (lambda n: [STILL], {"sigma_m": 0.002}),
        (lambda n: [STILL], {"sigma_rad": 0.05}),
        (lambda n: [STILL], {"age_s": 2.0}),
    ],
    ids=["moving", "uncertain position", "uncertain rotation", "old"],
)
def test_what_is_not_stable_is_not_taken(publish, poses, options):
    publish("brick", poses, **options)
    output, code = run_wait()
    assert code == 1 and "No stable pose" in output, output


def test_a_still_instance_beside_a_moving_one(publish):
    far = shifted(STILL, 0.3)
    publish("brick", lambda n: [shifted(STILL, 0.002 * n), far])
    output, code = run_wait(timeout="30")
    assert code == 0, output
    assert float(output.split("position")[1].split()[0]) == pytest.approx(far[0, 3], abs=1e-3)


def test_with_the_real_node_and_ros_arguments(bench):
    bench.start()
    name = f"{bench.namespace}/pose_node"
    process = start(WAIT, "brick", "--node", name, "--timeout", "40", *ROS_ARGS)
    try:
        bench.stream(lambda: process.poll() is not None, "the example ends", 90)
        output = process.communicate()[0]
    finally:
        process.kill()
    assert process.returncode == 0, output
    x, y, z = (float(v) for v in output.split("position")[1].split()[:3])
    assert np.allclose([x, y, z], STILL[:3, 3], atol=0.003)


def test_without_moveit_it_says_what_to_install(tmp_path):
    code = (
        "import sys, runpy; sys.modules['moveit_msgs'] = None; "
        f"runpy.run_path({str(COLLISION)!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 1
    assert "apt install ros-$ROS_DISTRO-moveit-msgs" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def scene():
    module = load(COLLISION)
    return module, module.Scene(load_objects(ROOT / "config" / "objects" / "demo.yaml"))


def build_poses(*seen):
    """(object, instance, 4x4) -> what the pipeline would say."""
    return tuple(PoseEstimate(name, T, 0.9, 1.0, 0.5, "test", instance=i) for name, i, T in seen)


@needs_moveit
def test_instances_are_added_moved_and_removed(scene):
    module, scene = scene
    library = load_objects(ROOT / "config" / "objects" / "demo.yaml")
    builder, header = MarkerBuilder(library), Header(frame_id=FRAME)

    def see(*seen, now_s=0.0):
        return scene.update(builder.build(build_poses(*seen), header, 1.0).markers, now_s)

    kind = module.CollisionObject
    added = see(("mug", 0, STILL), ("mug", 1, shifted(STILL, 0.2)))
    assert [(c.id, c.operation) for c in added] == [("mug_0", kind.ADD), ("mug_1", kind.ADD)]
    assert added[0].header.frame_id == FRAME and added[0].type.key == "mug"
    T = added[0].pose
    assert np.allclose([T.position.x, T.position.y, T.position.z], STILL[:3, 3])
    assert see(("mug", 0, shifted(STILL, 0.004)), ("mug", 1, shifted(STILL, 0.2))) == []
    moved = see(("mug", 0, shifted(STILL, 0.006)), ("mug", 1, shifted(STILL, 0.2)))
    assert [(c.id, c.operation) for c in moved] == [("mug_0", kind.MOVE)]
    assert not moved[0].meshes, "MoveIt's MOVE must not bring a shape"
    turned = se3.make_transform(se3.exp_so3(np.array([0, 0, 0.1])), np.zeros(3))
    (change,) = see(("mug", 0, shifted(STILL, 0.006) @ turned), ("mug", 1, shifted(STILL, 0.2)))
    assert change.operation == kind.MOVE
    (removed,) = see(("mug", 1, shifted(STILL, 0.2)), now_s=1.0)
    assert (removed.id, removed.operation) == ("mug_0", kind.REMOVE)
    assert [c.id for c in scene.forget_old(1.0 + module.FORGET_S + 0.1)] == ["mug_1"]
    assert scene.forget_old(100.0) == []


@needs_moveit
def test_everything_goes_when_the_node_stops_and_comes_for_a_new_move_group(scene):
    module, scene = scene
    builder = MarkerBuilder(load_objects(ROOT / "config" / "objects" / "demo.yaml"))
    poses = build_poses(("mug", 0, STILL), ("valve", 2, STILL))
    markers = builder.build(poses, Header(frame_id=FRAME), 1.0).markers
    assert len(scene.update(markers, 0.0)) == 2 and scene.update(markers, 0.1) == []
    scene.start_again()
    assert [c.operation for c in scene.update(markers, 0.2)] == [module.CollisionObject.ADD] * 2
    gone = scene.update(builder.clear().markers, 0.3)
    assert sorted((c.id, c.operation) for c in gone) == [
        ("mug_0", module.CollisionObject.REMOVE), ("valve_2", module.CollisionObject.REMOVE),
    ]  # fmt: skip


@needs_moveit
def test_the_mesh_is_the_library_s_in_metres(scene):
    module, _ = scene
    model = load_objects(ROOT / "config" / "objects" / "demo.yaml")["mug"]
    shape = module.describe_shape(model)
    (mesh,) = shape["meshes"]
    vertices = np.array([[v.x, v.y, v.z] for v in mesh.vertices])
    source = model.load_mesh()
    assert np.array_equal(vertices, source.vertices_m)
    assert np.allclose([vertices.min(0), vertices.max(0)], model.bounds_m, atol=1e-4)
    faces = np.array([list(t.vertex_indices) for t in mesh.triangles])
    assert np.array_equal(faces, source.faces)


@needs_moveit
def test_without_a_mesh_there_is_its_box(scene):
    module, _ = scene
    model = LIBRARY["brick"]
    assert model.mesh_path is None
    shape = module.describe_shape(model)
    (box,), (centre,) = shape["primitives"], shape["primitive_poses"]
    low, high = model.bounds_m
    assert box.type == box.BOX and np.allclose(box.dimensions, high - low)
    middle = [centre.position.x, centre.position.y, centre.position.z]
    assert np.allclose(middle, (low + high) / 2)


def save_library(path):
    """The bench's objects as a file."""
    entries = [
        {
            "name": name, "unit": "m", "symmetries": [], "diameter_m": model.diameter_m,
            "bounds_m": model.bounds_m.tolist(), "keypoints_m": model.keypoints_m.tolist(),
            "surface": model.surface.tolist(),
        }
        for name, model in LIBRARY.objects.items()
    ]  # fmt: skip
    save_objects(path, "bench", entries)


@needs_moveit
def test_over_dds_with_the_real_node_until_the_object_is_lost(bench, tmp_path):
    """The node's objects are the bench's: a library on disk with their names, without meshes."""
    from moveit_msgs.msg import CollisionObject

    save_library(tmp_path / "bench.yaml")
    changes = []
    bench._own.node.create_subscription(CollisionObject, "/collision_object", changes.append, 50)
    bench.start()
    process = start(
        COLLISION, "--objects", str(tmp_path / "bench.yaml"),
        "--node", f"{bench.namespace}/pose_node",
    )  # fmt: skip
    try:
        bench.stream(lambda: len({c.id for c in changes}) >= 3, "three objects are added", 60)
        added = {c.id: c for c in changes if c.operation == CollisionObject.ADD}
        assert {i.rpartition("_")[0] for i in added} == {"wedge", "brick"}
        assert all(c.header.frame_id == FRAME and c.primitives for c in added.values())
        bench.use_world(World())
        bench.stream(
            lambda: {c.id for c in changes if c.operation == CollisionObject.REMOVE} == set(added),
            "all are removed", 30,
        )  # fmt: skip
    finally:
        process.terminate()
        output = process.communicate(timeout=20)[0]
    assert "Traceback" not in output, output
