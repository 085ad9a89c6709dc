"""The doctor and the node agree: on files, on what is subscribed to, on the node's own options."""

import importlib.util
from contextlib import ExitStack

import pytest
import yaml
from bench import Bench
from clinic import Clinic
from model_files import write_files

from heatnet_ros.objects import load_objects


@pytest.fixture
def clinic(tmp_path):
    return Clinic(tmp_path)


def write_params(folder, **changes):
    parameters = write_files(folder / "set") | changes
    path = folder / "pose.yaml"
    path.write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}))
    return str(path)


def narrow_estimator(folder):
    """Its network knows one object less than the detector."""
    path = folder / "set" / "estimator" / "manifest.yaml"
    known = load_objects(folder / "set" / "objects.yaml").keypoints_hash(["wedge"])
    manifest = yaml.safe_load(path.read_text()) | {"objects": ["wedge"], "objects_hash": known}
    path.write_text(yaml.safe_dump(manifest))


def test_objects_that_the_node_refuses(clinic, tmp_path):
    report = clinic.examine("--only", "files", "--params", write_params(tmp_path, objects=["cup"]))
    assert report.status == 2
    report.one("error", "models", "Object 'cup' is not in", "")


def test_a_detector_that_finds_more_than_the_estimator_knows(clinic, tmp_path):
    params = write_params(tmp_path)
    narrow_estimator(tmp_path)
    report = clinic.examine("--only", "files", "--params", params)
    assert report.status == 2
    report.one("error", "models", "finds brick, which estimator", "models of the same object set")


@pytest.mark.skipif(importlib.util.find_spec("tf2_msgs") is not None, reason="tf2_msgs is here")
def test_publish_tf_without_its_message(clinic, tmp_path):
    report = clinic.examine("--only", "files", "--params", write_params(tmp_path, publish_tf=True))
    assert report.status == 2
    report.one("error", "parameters", "tf2_msgs is not installed", "set publish_tf to false")


def test_parameters_of_other_nodes_are_a_warning(clinic, tmp_path):
    params = write_params(tmp_path, **{"laser.rate": 3.0, "gate.min_scor": 0.4})
    report = clinic.examine("--only", "files", "--params", params)
    assert report.status == 1, report.findings
    report.one("warning", "parameters", "'laser.rate' is unknown, the node ignores it", "Known")
    report.one("warning", "parameters", "'gate.min_scor' is unknown", "'gate.min_score'")


def test_a_model_without_depth_needs_none(clinic):
    words = ("--only", "camera", "--camera", "realsense", "--seconds", "0.3")
    report = clinic.examine(*words, "--params", "config/pose_lm_rgb.yaml")
    found = report.one("ok", "topics", "--camera realsense", "")
    assert "depth" not in found["evidence"]
    assert not [f for f in report.findings if "depth" in f["what"]]


def test_a_running_node_is_judged_by_its_own_options(bench, clinic):
    """The parameter file here says 0.008 s and rectified: false."""
    bench.start(sync_slop_s=0.011, rectified=True)
    node = f"{bench.namespace}/pose_node"
    report = clinic.examine(
        *("--only", "camera", "--seconds", "1", "--node", node),
        stream=lambda done: bench.stream(done, "the doctor's end", 60, 15, info=with_projection),
    )
    report.one("ok", "depth/image_raw", "within sync_slop_s 0.011 s", "")
    assert bench.values()["rectified"] == "true"
    assert "fx 600.0" in report.one("ok", "camera_info", "calibrated", "")["evidence"], "that of P"


def with_projection(info):
    info.p = [600.0, 0.0, 320.0, 0.0, 0.0, 600.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def test_of_several_nodes_one_is_judged_and_named(bench, clinic):
    with ExitStack() as stack:
        other = Bench()
        stack.callback(other.stop)
        for one in (bench, other):
            one.start()
        first, second = sorted((bench, other), key=lambda one: one.namespace)
        first.destroy_camera("color", "info")
        report = clinic.examine("--only", "camera", "--seconds", "0.5")
    names = [f"{one.namespace}/pose_node" for one in (first, second)]
    report.one("ok", "topics", f"those of {names[0]} are judged, --node names another", "")
    report.one("ok", "topics", f"those of {names[0]})", "")
    found = report.one("error", f"{first.namespace}/color/image_raw", "nobody", "Of its type")
    assert f"{second.namespace}/color/image_raw" in found["remedy"]
    assert "pose_node" not in found["remedy"], "the nodes' overlays are no camera"
