"""The examples as a user runs them, over real DDS."""

import importlib.util
import os
import re
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
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Header

from heatnet_ros.geometry import se3
from heatnet_ros.objects import load_objects, save_objects
from heatnet_ros.ros.detections import build_detections, import_vision_msgs
from heatnet_ros.ros.markers import MarkerBuilder
from heatnet_ros.ros.messages import ns_to_stamp
from heatnet_ros.types import PoseEstimate

ROOT = Path(__file__).resolve().parents[2]
WAIT = ROOT / "examples" / "wait_for_stable_pose.py"
COLLISION = ROOT / "examples" / "collision_objects.py"
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


def start(path, *arguments, folder=None):
    """folder: of ``extra_messages``."""
    paths = {"PYTHONPATH": [ROOT], "LD_LIBRARY_PATH": []}
    if folder is not None:
        paths["PYTHONPATH"].append(folder / "python")
        paths["LD_LIBRARY_PATH"].append(folder / "lib")
    before = {name: os.environ.get(name, "") for name in paths}
    return subprocess.Popen(
        [sys.executable, str(path), *arguments],
        env=os.environ | {n: os.pathsep.join([*map(str, paths[n]), before[n]]) for n in paths},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


class Publisher:
    """Publishes detections of one object at 30 Hz in a thread of its own until it is stopped."""

    def __init__(self, poses, score=0.9, sigma_m=3e-4, sigma_rad=3e-3, age_s=0.0):
        """poses: image number -> instance -> the 4x4 transform seen in it."""
        self._msg = import_vision_msgs()
        self.spinner = Spinner(rclpy.create_node("stand_in", namespace="/example"))
        self._publisher = self.spinner.node.create_publisher(
            self._msg.Detection3DArray, "pose_node/detections", 50
        )
        self._clock = self.spinner.node.create_publisher(Clock, "/clock", 10)
        self._poses, self._age_s, self._score = poses, age_s, score
        self._covariance = np.diag([sigma_m**2] * 3 + [sigma_rad**2] * 3)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        number = 0
        while not self._over.wait(1 / 30):
            stamp = ns_to_stamp(time.time_ns() - round(self._age_s * 1e9))
            seen = [
                PoseEstimate("brick", T, self._score, 1, 0, "", i, covariance=self._covariance)
                for i, T in self._poses(number).items()
            ]
            header = Header(stamp=stamp, frame_id=FRAME)
            self._clock.publish(Clock(clock=stamp))  # for who uses simulated time
            self._publisher.publish(build_detections(seen, header, LIBRARY, self._msg))
            number += 1

    def stop(self):
        self._over.set()
        self._thread.join()
        self.spinner.stop()


@pytest.fixture
def publish(ros, extra_messages):
    running = []

    def start_one(*arguments, **options):
        running.append(Publisher(*arguments, **options))

    yield start_one
    for publisher in running:
        publisher.stop()


@pytest.fixture
def wait(extra_messages):
    """Run the example to its end: what it printed and its exit status."""

    def run(*options, node="/example/pose_node", timeout_s=4.0):
        process = start_waiting(extra_messages, node, timeout_s, *options)
        return process.communicate(timeout=60)[0], process.returncode

    return run


def start_waiting(folder, node, timeout_s, *options):
    options = ("-p", f"node:={node}", "-p", f"timeout_s:={timeout_s}", *options)
    return start(WAIT, "brick", "--ros-args", *options, folder=folder)


def position(output):
    return [float(re.search(rf"\b{axis}=([-\d.e]+)", output)[1]) for axis in "xyz"]


def shifted(T, x_m):
    moved = T.copy()
    moved[0, 3] += x_m
    return moved


def test_a_still_object_is_printed(publish, wait):
    publish(lambda _: {0: STILL})
    output, code = wait(timeout_s=30.0)
    assert code == 0 and output.startswith(f"brick_0 in {FRAME} "), output
    np.testing.assert_allclose(position(output), STILL[:3, 3], atol=1e-4)


@pytest.mark.parametrize(
    ("poses", "options", "reason"),
    [
        # 1 mm further in each image: the fifth is 4 mm from the first
        (lambda n: {0: shifted(STILL, 0.001 * n)}, {}, "['moved by 4.0 mm or deg']"),
        (lambda n: {} if n % 10 else {0: STILL}, {}, "['the first of them 1."),
        (lambda n: {0: STILL}, {"sigma_m": 0.002}, "['sigma 2.0 mm, 0.2 deg']"),
        (lambda n: {0: STILL}, {"sigma_rad": 0.05}, "['sigma 0.3 mm, 2.9 deg']"),
        (lambda n: {0: STILL}, {"sigma_m": 0.0}, "['sigma 0.0 mm, 0.2 deg']"),
        (lambda n: {0: STILL}, {"score": 0.3}, "['score 0.30']"),
        (lambda n: {0: STILL}, {"age_s": 2.0}, "['the first of them 2."),
        (lambda n: {}, {}, "pose_node/detections': ['the last image shows []']"),
    ],
    ids=[
        "moving", "seldom seen", "uncertain position", "uncertain rotation", "unknown", "weak",
        "old", "not there",
    ],
)  # fmt: skip
def test_what_is_not_stable_is_not_taken_and_it_says_why(publish, wait, poses, options, reason):
    publish(poses, **options)
    output, code = wait()
    assert code == 1 and "No stable brick in 4 s" in output and reason in output, output


def test_in_simulated_time_the_age_is_that_of_its_clock(publish, wait):
    publish(lambda _: {0: STILL}, age_s=1e6)
    output, code = wait("-p", "use_sim_time:=true", timeout_s=30.0)
    assert code == 0, output
    output, code = wait()
    assert code == 1 and "the first of them 1000000." in output


def test_without_a_node_it_says_whom_to_ask(ros, wait):
    output, code = wait(node="/nobody", timeout_s=1)
    assert code == 1
    assert "'/nobody/detections': ['no message came; python -m heatnet_ros doctor" in output


def test_a_still_instance_beside_a_moving_one(publish, wait):
    far = shifted(STILL, 0.3)
    publish(lambda n: {0: shifted(STILL, 0.002 * n), 1: far})
    output, code = wait(timeout_s=30.0)
    assert code == 0 and output.startswith("brick_1 "), output
    assert position(output)[0] == pytest.approx(far[0, 3], abs=1e-3)


def test_with_the_real_node(bench, extra_messages):
    bench.start()
    process = start_waiting(extra_messages, f"{bench.namespace}/pose_node", 40.0)
    try:
        bench.stream(lambda: process.poll() is not None, "the example ends", 90)
        output = process.communicate()[0]
    finally:
        process.kill()
    assert process.returncode == 0, output
    np.testing.assert_allclose(position(output), STILL[:3, 3], atol=0.003)


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
