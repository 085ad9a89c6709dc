"""What users of such nodes complain about, over real DDS between processes: the camera is here,
``pose_node`` and the doctor are processes of their own.

docs/troubleshooting.md lists the complaints; those that another file reproduces it names.
"""

import dataclasses
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import rclpy
import yaml
from child_environment import child_environment
from clinic import Clinic
from fakes import LIBRARY, MESHES, K, World, pose
from model_files import write_files
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from test_bad_input import CAMERA_WITHOUT_PROFILE, damage, filled, other_frame, resized
from test_configuration import millimetre_mesh
from theatre import Theatre

from heatnet_ros.engines import has_gpu
from heatnet_ros.geometry import se3
from heatnet_ros.geometry.camera import project
from heatnet_ros.mesh import write_ply
from heatnet_ros.ros.messages import array_to_image, ns_to_stamp, stamp_to_ns
from heatnet_ros.types import Distortion

LENS = Distortion("plumb_bob", (0.12, -0.25, 0.001, -0.002, 0.0))


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    return Clinic(tmp_path_factory.mktemp("clinic"))


def test_a_healthy_camera_is_called_healthy(bench, clinic):
    bench_info = bench.create_publisher(CameraInfo, "depth/camera_info")

    def and_depth_info(message):
        bench_info.publish(message)
        return message

    report = clinic.look_at(bench, info=and_depth_info)
    assert report.is_well(), report.findings
    report.one("ok", "color/image_raw", "640x480 rgb8 in frame 'camera_color_optical_frame'", "")
    report.one("ok", "depth/image_raw", "its CameraInfo is that of", "")
    report.one("ok", "depth/image_raw", "16UC1, 100% valid, median 1.50 m", "")
    report.one("ok", "depth/image_raw", "within sync_slop_s 0.008 s", "")


def test_stamps_that_never_match(bench, clinic):
    """Complaint: nothing comes out (no sync)."""

    def late(message):
        stamp = ns_to_stamp(stamp_to_ns(message.header.stamp) - 30_000_000)
        message.header = Header(stamp=stamp, frame_id=message.header.frame_id)
        return message

    report = clinic.look_at(bench, rate_hz=10, depth=late)
    assert report.status == 2
    found = report.one("error", "depth/image_raw", "0% of", "enable_sync:=true")
    assert "the nearest is -30" in found["evidence"], "the measured offset"


def test_depth_that_is_not_aligned(bench, clinic):
    """Complaint: no aligned depth: another frame, and a camera of its own."""
    own = bench.create_publisher(CameraInfo, "depth/camera_info")

    def with_own_camera(message):
        own_k = np.array([[380.0, 0, 318.0], [0, 380.0, 242.0], [0, 0, 1]])
        own.publish(CameraInfo(header=message.header, width=640, height=480, k=own_k.ravel()))
        return message

    report = clinic.look_at(bench, depth=other_frame, info=with_own_camera)
    assert report.status == 2
    report.one("error", "depth/image_raw", "frame_id is 'depth_frame'", "align_depth.enable:=true")
    found = report.one("error", "depth/image_raw", "depth is not aligned", "depth_registration")
    assert "fx 380.0" in found["evidence"] and "fx 615.0" in found["evidence"]


def test_depth_that_is_published_but_not_aligned_under_another_name(bench, clinic):
    """Complaint: no aligned depth, the commonest: a RealSense without align_depth."""
    bench.destroy_camera("depth")
    raw = bench.create_publisher(Image, "depth/image_rect_raw")

    def and_raw_depth(message):
        depth = array_to_image(np.full((480, 640), 1500, np.uint16), "16UC1")
        depth.header = Header(stamp=message.header.stamp, frame_id="camera_depth_optical_frame")
        raw.publish(depth)
        return message

    report = clinic.look_at(bench, depth=None, info=and_raw_depth)
    assert report.status == 2
    found = report.one("error", "depth/image_raw", "0 publisher(s)", "align_depth.enable:=true")
    assert "Start the camera" not in found["remedy"], "it runs"
    assert "image_rect_raw" not in found["remedy"], "not aligned: no topic to remap to"
    aligned = bench.create_publisher(Image, "aligned_depth_to_color/image_raw")
    report = clinic.look_at(bench, depth=None, info=and_raw_depth)
    name = f"{bench.namespace}/aligned_depth_to_color/image_raw"
    report.one("error", "depth/image_raw", "0 publisher(s)", f"aligned are: {name}.")
    for own in (raw, aligned):
        bench._own.node.destroy_publisher(own)


def test_depth_of_another_size_and_unknown_distortion(bench, clinic):
    magic = damage(distortion_model="magic", d=[0.1])
    report = clinic.look_at(bench, depth=resized, info=magic)
    assert report.status == 2
    report.one("error", "camera_info", "Distortion model 'magic' is not supported", "rectify")


def test_wrong_units_and_uncalibrated(bench, clinic):
    """Complaint: wrong units. 32FC1 in millimetres, and 16UC1 in metres; K is zero as well."""
    report = clinic.look_at(bench, depth=filled(900.0), info=damage(k=[0.0] * 9))
    assert report.status == 2
    report.one("error", "depth/image_raw", "the median depth is 900 m", "millimetres")
    report.one("error", "camera_info", "K has focal lengths 0, 0", "Calibrate it")
    in_metres = array_to_image(np.full((480, 640), 2, np.uint16), "16UC1")
    report = clinic.look_at(bench, depth=in_metres)
    report.one("error", "depth/image_raw", "the median depth is 0.002 m", "depth unit")


def test_a_distortion_that_is_not_used(bench, clinic, tmp_path):
    """Complaint: distortion ignored, here by a parameter that does not fit the topic."""
    params = tmp_path / "pose.yaml"
    params.write_text(yaml.safe_dump({"/**": {"ros__parameters": {"rectified": True}}}))
    P = np.hstack([K, np.zeros((3, 1))]).ravel()
    curved = damage(p=P, distortion_model="plumb_bob", d=list(LENS.coefficients))
    report = clinic.look_at(bench, "--params", str(params), seconds=1, info=curved)
    report.one("warning", "color/image_raw", "plumb_bob of CameraInfo is not used", "rectified: f")


def test_two_streams_on_one_topic(bench, clinic):
    topic = f"{bench.namespace}/color/camera_info"
    report = clinic.look_at(bench, "--color-topic", topic)
    assert report.status == 2
    report.one("error", topic, "is the topic of color and camera_info", "Correct the remap")


def test_nobody_publishes_or_several_do_or_another_type(bench, clinic):
    """Complaint: nothing comes out and nothing says why."""
    bench.destroy_camera("depth")
    context = rclpy.Context()  # one participant cannot give a topic two types
    rclpy.init(context=context)
    other = rclpy.create_node("other", namespace=bench.namespace, context=context)
    other.create_publisher(CompressedImage, "depth/image_raw", 5)
    second = bench.create_publisher(CameraInfo, "color/camera_info")
    report = clinic.look_at(bench, depth=None)
    assert report.status == 2
    report.one("error", "depth/image_raw", "is of type sensor_msgs/msg/CompressedImage", "Remap")
    report.one("warning", "camera_info", "2 publishers", "Stop all but one")
    bench._own.node.destroy_publisher(second)
    other.destroy_node()
    context.shutdown()
    report = clinic.examine(
        "--only", "camera", "--seconds", "0.5", "--color-topic", "/nobody/color",
        stream=lambda done: bench.stream(done, "the doctor's end", depth=None),
    )  # fmt: skip
    found = report.one("error", "/nobody/color", "nobody publishes", "Start the camera or remap")
    assert f"{bench.namespace}/color/image_raw" in found["remedy"], "what there is instead"


def test_qos_that_does_not_fit(bench, clinic, tmp_path):
    """Complaint: nothing comes out (QoS)."""
    topic = f"{bench.namespace}/color/image_raw"
    bench.destroy_camera("color")
    bench.create_camera("color", QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT))
    override = f"qos_overrides.{topic}.subscription.reliability"
    params = tmp_path / "pose.yaml"
    params.write_text(yaml.safe_dump({"/**": {"ros__parameters": {override: "reliable"}}}))
    report = clinic.look_at(bench, "--params", str(params), seconds=1)
    assert report.status == 2
    found = report.one("error", "color/image_raw", "is incompatible in RELIABILITY", override)
    assert f"{bench.namespace}/bench's" in found["evidence"], "who publishes"


def test_large_images_lost_on_their_way(bench, clinic):
    """A camera in another process with Fast DDS's default shared memory."""
    environment = {k: v for k, v in os.environ.items() if "PROFILES" not in k}
    bench.destroy_camera("color")
    camera = subprocess.Popen(
        [sys.executable, "-c", CAMERA_WITHOUT_PROFILE, bench.namespace], env=environment
    )
    try:
        report = clinic.look_at(bench, seconds=3, color=None)
    finally:
        camera.kill()
        camera.wait()
    found = report.one("error", "color/image_raw", "messages were lost", "fastdds_large_frames")
    assert report.status == 2 and "FASTRTPS_DEFAULT_PROFILES_FILE" in found["remedy"]


def with_camera(K, distortion=LENS):
    def change(message):
        message.k = np.asarray(K, np.float64).ravel()
        message.distortion_model, message.d = distortion.model, list(distortion.coefficients)
        return message

    return change


def test_poses_follow_camera_info_and_its_distortion(ros, tmp_path):
    """Complaints: hard-coded intrinsics; distortion ignored."""
    T = pose(0.22, 0.14, 0.8)
    world = World(("wedge", T), distortion=LENS)
    with Theatre(tmp_path, world, rgbd=False, use_depth="'false'") as theatre:
        theatre.bench.stream_until_poses(depth=None, info=with_camera(K))
        [(_, got)] = theatre.poses_of(1, depth=None, info=with_camera(K))
        np.testing.assert_allclose(got, T, atol=2e-3)
        # the same image under other intrinsics: another pose, which is seen in the same pixels
        keypoints = LIBRARY["wedge"].keypoints_m
        seen_px = project(se3.transform(T, keypoints), K, LENS)
        wide = K * [[0.5, 1, 1], [1, 0.5, 1], [1, 1, 1]]
        flat = Distortion()
        theatre.bench.stream_for(0.3, depth=None, info=with_camera(wide))
        [(_, other)] = theatre.poses_of(1, depth=None, info=with_camera(wide))
        assert other[2, 3] < 0.6 * T[2, 3], "half the focal length, about half the distance"
        theatre.bench.stream_for(0.3, depth=None, info=with_camera(K, flat))
        [(_, straight)] = theatre.poses_of(1, depth=None, info=with_camera(K, flat))
        pixels = project(se3.transform(straight, keypoints), K)
        assert np.abs(pixels - seen_px).max() < 1.5
        assert np.linalg.norm(straight[:3, 3] - T[:3, 3]) > 0.004, "the lens counts"


@pytest.fixture(scope="module")
def stage(ros, tmp_path_factory):
    world = World(("wedge", pose(-0.15, 0.0, 0.8)))
    with Theatre(tmp_path_factory.mktemp("theatre"), world) as theatre:
        yield theatre


def test_symmetric_objects_do_not_flip(stage):
    """Complaint: symmetric objects flip between frames. The network only knows one branch."""
    stage.show(World(("brick", pose(0.0, 0.0, 0.7))))
    stage.bench.stream_until_poses()
    stamps, turns, last = iter(range(time.time_ns(), 2**63, 50_000_000)), [], None
    for degrees in range(0, 200, 20):  # through the turn where the network's answer jumps by 180
        R = se3.exp_so3(np.array([2.2, 0.4, 0.3])) @ se3.exp_so3([0, 0, np.radians(degrees)])
        stage.show(World(("brick", se3.make_transform(R, np.array([0.0, 0.0, 0.7])))))
        [(_, T)] = stage.poses_of(1, stamps)
        if last is not None:
            turns.append(np.degrees(se3.rotation_angle_rad(T[:3, :3], last[:3, :3])))
        last = T
    np.testing.assert_allclose(turns, 20.0, atol=2.0)


def test_several_objects_and_instances_keep_their_ids(stage):
    """Complaints: one object or one instance only; ids that change."""
    left, right = pose(-0.15, 0.0, 0.8), pose(0.15, 0.05, 0.9, (1.9, -0.3, 0.4))
    brick = ("brick", pose(0.0, -0.12, 0.7))
    stage.show(World(("wedge", left), ("wedge", right), brick))
    bench = stage.bench
    del bench.markers[:]
    places = []

    def note():
        for array in bench.markers:
            marks = {(m.ns, m.id): m.pose.position.x for m in array.markers if m.action == m.ADD}
            if ("wedge/axes", 1) in marks and ("brick/axes", 0) in marks:
                places.append((marks["wedge/axes", 0], marks["wedge/axes", 1]))
        del bench.markers[:]
        return len(places) >= 10

    bench.stream(note, "both instances")
    # the detector finds them in another order from now on
    stage.show(World(("wedge", right), brick, ("wedge", left)))
    number = len(places) + 10
    bench.stream(lambda: note() and len(places) >= number, "more frames")
    first, second = np.array(places).T
    assert np.ptp(first) < 0.01 and np.ptp(second) < 0.01 and abs(first[0] - second[0]) > 0.25


def test_latency_does_not_grow_with_load(stage, clinic):
    """Complaint: laggy. A camera three times faster than the node."""
    stage.show(World(("wedge", pose(-0.15, 0.0, 0.8))), delay_s=0.09)
    bench = stage.bench
    bench.stream_until_poses()
    bench.stream_for(0.5)  # what was there before is forgotten
    del bench.latencies_s[:]
    bench.stream_for(3.0, rate_hz=30)
    early_s, _, late_s = (np.median(part) for part in np.array_split(bench.latencies_s, 3))
    assert late_s < early_s + 0.3, "a queue would make it grow by 0.67 s a second"
    node = f"{bench.namespace}/pose_node"
    report = clinic.look_at(bench, "--only", "node", "--node", node, rate_hz=30)
    assert report.is_well(), report.findings
    found = report.one("ok", f"{node} stages", "estimate", "")
    assert float(found["evidence"].split("estimate ")[1].split(",")[0]) > 80
    report.one("ok", f"{node} latency", "ms from stamp to pose (p50 / p95), dropped", "")
    report.one("ok", node, "detector fake CPU fp32", "")


def test_parameters_change_without_a_restart(stage, clinic):
    """Complaint: parameters that need a restart; and why an object has no pose is said."""
    stage.show(World(("wedge", pose(-0.15, 0.0, 0.8))))
    bench = stage.bench
    bench.stream_until_poses()
    assert bench.set_parameter("gate.min_inliers", 900).successful
    node = f"{bench.namespace}/pose_node"
    bench.stream_for(1.2)
    report = clinic.look_at(bench, "--only", "node", "--node", node)
    assert report.status == 1
    found = report.one("warning", f"{node} wedge", "too_few_inliers", "gate.min_inliers")
    assert "min_inliers 900" in found["evidence"]
    assert bench.set_parameter("gate.min_inliers", 8).successful
    bench.stream_until_poses()


def test_doctor_finds_the_running_nodes_topics(stage, clinic):
    """Without topics the doctor asks the node; two nodes would be asked for --node."""
    node = f"{stage.bench.namespace}/pose_node"
    stage.show(World(("wedge", pose(-0.15, 0.0, 0.8))))
    report = clinic.examine(
        *("--only", "camera", "--only", "node", "--seconds", "1", "--node", node),
        stream=lambda done: stage.bench.stream(done, "the doctor's end", rate_hz=15),
    )
    report.one("ok", "topics", f"those of {node}", "")
    assert report.is_well(), report.findings


def test_diagnostics_measure_the_input_and_warn_where_it_is_poor(stage):
    """What the doctor measures the node publishes; poor depth is WARN, not silence."""
    bench = stage.bench
    stage.show(World(("wedge", pose(-0.15, 0.0, 0.8))))
    bench.stream_until_poses()
    bench.stream(lambda: bench.values().get("unpaired_rate") == "0.000", "enough pairs")
    values = bench.values()
    assert values["sync_offset_ms"] == "0.00" and values["depth_valid"] == "1.00"
    assert values["boxes"] == "1" and values["boxes_followed"] in "01"
    assert 0 <= float(values["drop_rate"]) < 1 and float(values["camera_hz"]) > 1
    assert values["topic.depth"] == f"{bench.namespace}/depth/image_raw"
    assert float(values["stage_estimate_ms"]) > 0

    def sparse(message):
        depth_mm = np.zeros((480, 640), np.uint16)
        depth_mm[:, :64] = 800
        return array_to_image(depth_mm, "16UC1")

    def level():
        return bench.diagnostics["input"].level

    text = "depth/image_raw: only 10% of the depth pixels are valid"
    # on a busy machine frames may be missing as well, which is a warning of its own
    said = lambda: text in bench.diagnostics["input"].message  # noqa: E731
    bench.stream(said, "a warning", depth=sparse)
    assert level() == b"\1"
    over = lambda: "are valid" not in bench.diagnostics["input"].message  # noqa: E731
    bench.stream(over, "the warning is over")
    assert level() != b"\2"


def write_params(folder, **changes):
    """Object and model files, and a parameter file for them."""
    parameters = write_files(folder / "set") | changes
    path = folder / "pose.yaml"
    path.write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}))
    return str(path)


def test_mesh_in_millimetres(clinic, tmp_path):
    """Complaint: mesh in mm; tests/ros/test_configuration.py has the node's side."""
    params = write_params(tmp_path)
    millimetre_mesh(tmp_path / "set")
    report = clinic.examine("--only", "files", "--params", params)
    assert report.status == 2
    report.one("error", "objects", "object 'wedge': the mesh", "Correct 'unit' (m or mm)")


def test_every_network_says_where_it_runs(clinic, tmp_path):
    """Complaint: no CPU support."""
    report = clinic.examine("--only", "files", "--params", write_params(tmp_path))
    assert report.status == 0, report.findings
    for role in ("detector", "estimator"):
        found = report.one("ok", role, "on onnxruntime CPU fp32", "")
        assert float(found["evidence"].split(", ")[1].split(" ms")[0]) > 0


@pytest.mark.skipif(has_gpu(), reason="there is a GPU: cuda is no fault here")
def test_a_gpu_that_is_not_there_is_an_error(clinic, tmp_path):
    """Complaint: silent CPU fallback while the log says GPU."""
    params = write_params(tmp_path, **{"engine.backend": "auto", "engine.device": "cuda"})
    report = clinic.examine("--only", "files", "--params", params)
    assert report.status == 2
    for role in ("detector", "estimator"):
        report.one("error", role, "asks for cuda", "set engine.device to auto or cpu")


def test_packages_that_fight(clinic, tmp_path):
    """Complaint: pip against NumPy 2. What ROS compiled for NumPy 1, and two OpenCVs."""
    (tmp_path / "cv_bridge.py").write_text("raise AttributeError('_ARRAY_API not found')\n")
    for name, version in (("opencv_python", "5.0.0"), ("opencv_python_headless", "4.10.0")):
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
        (info / "METADATA").write_text(text)
    params = write_params(tmp_path)
    environment = child_environment(tmp_path)
    report = clinic.examine("--only", "files", "--params", params, environment=environment)
    assert report.status == 1, report.findings
    report.one("warning", "cv_bridge", "_ARRAY_API not found", "pip install 'numpy<2'")
    report.one("warning", "cv2", "opencv-python 5.0.0 and opencv-python-headless 4.10.0", "uninst")


def test_own_cad_in_the_wrong_unit_gets_a_clue(tmp_path):
    """Complaint: training on one's own CAD fails without a clue."""
    mesh = MESHES["wedge"]
    large = dataclasses.replace(mesh, vertices_m=1000 * mesh.vertices_m)
    write_ply(tmp_path / "part.ply", large)
    done = subprocess.run(
        [sys.executable, "-m", "heatnet_ros", "keypoints", str(tmp_path / "part.ply"), "--name",
         "parts", "--unit", "m", "--out", str(tmp_path / "parts.yaml")],
        env=child_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "--unit mm" in done.stderr, done.stderr
    assert not (tmp_path / "parts.yaml").exists()
