"""The whole offline way on tiny data: render, train, kill and resume, export, run."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch", reason="torch is in the train extra (make test-train)")
onnx = pytest.importorskip("onnx", reason="onnx is in the train extra (make test-train)")

from heatnet_ros.config import EngineConfig  # noqa: E402
from heatnet_ros.datasets.crop_cache import CacheOptions, ensure_cache  # noqa: E402
from heatnet_ros.engines import load_engine  # noqa: E402
from heatnet_ros.manifest import load_manifest  # noqa: E402
from heatnet_ros.objects import load_objects  # noqa: E402
from heatnet_ros.resources import find_resource  # noqa: E402
from heatnet_ros.training import train_heatnet, train_yolo  # noqa: E402
from heatnet_ros.training.crops import AugmentConfig, crop_sample, load_crops  # noqa: E402
from heatnet_ros.training.frames import frame_sample, index_boxes, load_frames  # noqa: E402

pytestmark = pytest.mark.train
DEMO = find_resource("config/objects/demo.yaml", "Object library")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Three shards, rendered by the command in a process of its own, as a user does it.

    In one process Mesa's LLVM and triton's or OpenVINO's libraries crash each other.
    """
    out = tmp_path_factory.mktemp("data")
    command = [sys.executable, "-m", "heatnet_ros", "synthesize", "--objects", str(DEMO)]
    done = subprocess.run(
        [*command, "--out", str(out), "--images", "240", "--seed", "3", "--workers", "2"],
        cwd=DEMO.parents[2], capture_output=True, text=True,
    )  # fmt: skip
    if "No off-screen OpenGL" in done.stderr:
        pytest.skip(f"off-screen OpenGL cannot be had here: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return ensure_cache(out, "train", load_objects(DEMO), CacheOptions())


def export_as_a_command(run: Path, out: Path) -> None:
    # as users do; in one process torch's threads and OpenVINO's crash each other after a training
    command = [sys.executable, "-m", "heatnet_ros", "export", "--run", str(run)]
    done = subprocess.run(
        [*command, "--out", str(out)], cwd=DEMO.parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def heatnet_config(data: Path, **changes) -> train_heatnet.TrainConfig:
    return train_heatnet.TrainConfig(
        objects_file=str(DEMO), data=str(data), width=8, batch=8, validation_shards=1, **changes
    )


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "tiny"
    train_heatnet.train(heatnet_config(data, samples=320), out)
    return out


def test_augmentation_moves_picture_depth_and_keypoints_together(data):
    stored = load_crops(data, 0, 1)
    crops = {key: np.stack([values[i] for i in range(4)]) for key, values in stored.items()}
    diameters = [m.diameter_m for m in load_objects(DEMO).objects.values()]
    crops["rgb"][:] = 0
    for i in range(4):  # a white dot off the middle of each box as its first keypoint
        x0, y0, x1, y1 = crops["box"][i]
        x, y = int(0.6 * x0 + 0.4 * x1), int(0.35 * y0 + 0.65 * y1)
        crops["keypoints"][i][0] = x, y
        crops["rgb"][i][y - 2 : y + 3, x - 2 : x + 3] = 255
    still = AugmentConfig(rotate_deg=30, zoom=0.2, shift=0.05, sensor=0.0, cutout=0.0)
    for i in range(4):
        rgb, depth, points, _ = crop_sample(
            crops, i, diameters, 128, 1.3, still, np.random.default_rng(i), True
        )
        weight = rgb[..., 0].astype(float)
        ys, xs = np.mgrid[:128, :128]
        centroid = np.array([(xs * weight).sum(), (ys * weight).sum()]) / weight.sum()
        np.testing.assert_allclose(centroid, points[0], atol=0.4)
        assert depth.shape == (2, 128, 128) and 0.3 < depth[1].mean() <= 1.0


def test_frames_keep_their_boxes(data):
    frames = index_boxes(load_frames(data, 0, 2))
    for i in range(4):
        image, rows = frame_sample(frames, i, None, 0.0)
        assert image.shape == (256, 320, 3)
        original = frames["boxes"][frames["boxes"][:, 0] == i]
        np.testing.assert_allclose(rows[:, 1], original[:, 2] * 320, atol=1e-3)
        np.testing.assert_allclose(rows[:, 2], original[:, 3] * 240 + 8, atol=1e-3)


def test_loss_falls_and_a_killed_run_continues(data, tmp_path, capsys):
    out = tmp_path / "run"
    config = heatnet_config(data, samples=320)
    first = dataclasses.replace(config, samples=160)
    train_heatnet.train(first, out)
    (out / "final.pt").unlink()
    capsys.readouterr()
    train_heatnet.train(config, out)
    said = capsys.readouterr().out
    assert "continuing after 160 samples" in said and (out / "final.pt").exists()
    losses = [
        float(line.split("loss ")[1].split()[0]) for line in said.splitlines() if "loss" in line
    ]
    assert losses[-1] < np.log(32 * 32)  # better than a flat heatmap


def test_a_trained_network_is_exported_with_its_history(run, tmp_path):
    export_as_a_command(run, tmp_path / "tiny_heatnet")
    manifest = load_manifest(tmp_path / "tiny_heatnet")
    assert manifest.training["samples_seen"] == 320
    assert "pytest" in manifest.training["command"] and manifest.training["commit"]
    scores = manifest.accuracy["held_out_crops_pnp_only"]
    assert set(scores) == set(load_objects(DEMO).objects)


def test_checkpoints_are_data_not_code(run):
    state = torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)
    assert state["seen"] == 320 and "optimizer" in state


def test_yolo_trains_resumes_and_exports(data, tmp_path, capsys):
    pytest.importorskip("ultralytics", reason="ultralytics is in the train extra")
    out = tmp_path / "yolo"
    config = train_yolo.YoloTrainConfig(
        objects_file=str(DEMO), data=str(data), batch=4, samples=8, validation_shards=1
    )
    train_yolo.train(config, out)
    (out / "final.pt").unlink()
    train_yolo.train(dataclasses.replace(config, samples=16), out)
    assert "continuing after 8 samples" in capsys.readouterr().out
    export_as_a_command(out, tmp_path / "tiny_yolo")
    manifest = load_manifest(tmp_path / "tiny_yolo")
    engine = load_engine(manifest.onnx_path, EngineConfig(backend="onnxruntime"))
    rows = engine.run({"image": np.zeros((1, 256, 320, 3), np.uint8)})["detections"]
    assert rows.shape[0] == 1 and rows.shape[2] == 6 and np.isfinite(rows).all()
    content = yaml.safe_load((tmp_path / "tiny_yolo" / "manifest.yaml").read_text())
    assert content["objects"] == list(load_objects(DEMO).objects)
