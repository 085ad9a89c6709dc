"""Wrong files: one clear message, the node lives on unconfigured, and configures when mended."""

import dataclasses
import signal
import subprocess
import sys

import numpy as np
import pytest
import yaml
from bench import FRAME
from child_environment import child_environment
from fakes import MESHES, World
from model_files import OBJECTS, TRUTH, write_detector, write_files

from heatnet_ros.mesh import write_ply
from heatnet_ros.pipeline import load_pipeline


def remove_network(folder):
    (folder / "detector" / "network.onnx").unlink()


def remove_model(folder):
    (folder / "estimator").rename(folder / "elsewhere")


def damage_network(folder):
    path = folder / "estimator" / "network.onnx"
    path.write_bytes(path.read_bytes() + b"\0")


def other_tensors(folder):
    write_detector(folder / "detector", output="boxes")


def edit_objects(folder, change):
    path = folder / "objects.yaml"
    content = yaml.safe_load(path.read_text())
    change(content["objects"])
    path.write_text(yaml.safe_dump(content))


def millimetres(folder):
    def change(objects):
        objects[0]["diameter_m"] *= 1000
        objects[0]["keypoints_m"] = [[1000 * x for x in p] for p in objects[0]["keypoints_m"]]

    edit_objects(folder, change)


def millimetre_mesh(folder):
    mesh = MESHES["wedge"]
    large = dataclasses.replace(mesh, vertices_m=mesh.vertices_m * 1000)
    write_ply(folder / "wedge.ply", large)


def duplicate_name(folder):
    edit_objects(folder, lambda objects: objects[1].update(name="wedge"))


def other_keypoints(folder):
    edit_objects(folder, lambda objects: objects[0]["keypoints_m"].reverse())


def bad_yaml(folder):
    (folder / "objects.yaml").write_text("objects: [")


CASES = [
    (remove_network, r"network file .*detector/network.onnx is missing. Restore it"),
    (remove_model, r"Estimator model '.*estimator' not found. Looked at"),
    (damage_network, r"sha256 of .*network.onnx is .*, the manifest says .*restore"),
    (other_tensors, r"output 'detections' should be boxes float32\[1,\?,6\].*network.onnx has"),
    (millimetres, r"objects.yaml: object 'wedge': diameter_m .* expected 0.005 to 5.0 m.*milli"),
    (millimetre_mesh, r"object 'wedge': the mesh .*wedge.ply read as 'm' .*Correct 'unit'"),
    (duplicate_name, r"objects.yaml defines 'wedge' twice. Rename or delete one"),
    (other_keypoints, r"'estimator' was trained for other keypoints .*objects.yaml"),
    (bad_yaml, r"Object library .*objects.yaml is not valid YAML"),
]


@pytest.mark.parametrize(("harm", "pattern"), CASES, ids=[c[0].__name__ for c in CASES])
def test_wrong_file(bench, tmp_path, harm, pattern):
    folder = tmp_path / "set"
    parameters = write_files(folder)
    harm(folder)
    bench.start(load_pipeline, wait=False, **parameters)
    bench.wait_for(lambda: bench.errors(f"Cannot configure: .*{pattern}"), "a message")
    assert bench.state() == "unconfigured" and len(bench.errors()) == 1
    bench.wait_for(lambda: "pipeline" in bench.diagnostics, "diagnostics")
    status = bench.diagnostics["pipeline"]
    assert status.level == b"\2" and status.message == bench.errors()[0]
    write_files(folder)
    assert bench.change_state("configure") and bench.change_state("activate")
    bench.wait_for(lambda: bench.diagnostics["pipeline"].level == b"\0", "diagnostics recover")
    assert bench.values()["engine.detector"] == "onnxruntime CPU fp32"


class Process:
    """The node in its own process, as ``ros2 run`` starts it."""

    def __init__(self, bench, parameters, log):
        path = log.with_suffix(".yaml")
        path.write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}))
        command = "from heatnet_ros.ros.pose_node import main; main()"
        ros = ["--ros-args", "-r", f"__ns:={bench.namespace}", "--params-file", str(path)]
        environment = child_environment()
        self._log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-c", command, *ros], stderr=file, stdout=file, env=environment
            )

    def log(self):
        return self._log.read_text()


@pytest.fixture
def processes():
    started = []
    yield started
    for process in started:
        process.process.kill()
        process.process.wait()


def test_own_process_from_parameter_file_to_sigint(bench, tmp_path, processes):
    flat = write_files(tmp_path / "set")
    parameters = {}
    for name, value in flat.items():
        group, _, leaf = name.rpartition(".")
        (parameters.setdefault(group, {}) if group else parameters)[leaf] = value
    remove_model(tmp_path / "set")
    process = Process(bench, parameters, tmp_path / "node.log")
    processes.append(process)
    bench.wait_for(lambda: "not found. Looked at" in process.log(), "a message", 20)
    assert process.process.poll() is None and bench.state() == "unconfigured"
    write_files(tmp_path / "set")
    assert bench.change_state("configure") and bench.change_state("activate")
    bench.wait_for(lambda: bench.values().get("state") == "active", "diagnostics")
    bench.use_world(World(*TRUTH))
    bench.stream(lambda: {name for name, _ in bench.poses} == set(OBJECTS), "poses", rate_hz=10)
    for name, message in bench.poses:
        p = message.pose.position
        np.testing.assert_allclose([p.x, p.y, p.z], dict(TRUTH)[name][:3, 3], atol=1e-3)
        assert message.header.frame_id == FRAME
    process.process.send_signal(signal.SIGINT)
    assert process.process.wait(20) == 0
    assert "Traceback" not in process.log(), process.log()
