"""Frames of the detector's training: mirrored as often as the training file says."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is in the train extra (make test-train)")
pytest.importorskip("ultralytics", reason="ultralytics is in the train extra")

from heatnet_ros.config import build_config
from heatnet_ros.datasets.shards import write_shard
from heatnet_ros.errors import ConfigError
from heatnet_ros.resources import find_resource
from heatnet_ros.training.train_yolo import YoloTrainConfig, build_task

pytestmark = pytest.mark.train
DEMO = find_resource("config/objects/demo.yaml", "Object library")


@pytest.mark.parametrize(("options", "share"), [({"flip": 0.0}, 0.0), ({}, 0.5), ({"flip": 1}, 1)])
def test_frames_are_mirrored_as_often_as_asked(options, share, tmp_path):
    frames = np.full((2, 96, 128, 3), 30, np.uint8)
    frames[:, :, :64] = 220
    # an object at the left, where no zoom or shift takes it over the middle
    boxes = np.array([[k, 0, 0.1, 0.3, 0.3, 0.7, 1.0] for k in range(2)], np.float32)
    for i in range(2):
        write_shard(tmp_path / f"shard_{i:05d}.npz", {"frames": frames, "boxes": boxes})
    values = {"objects_file": str(DEMO), "data": str(tmp_path), "validation_shards": 1, **options}
    task = build_task(build_config(YoloTrainConfig, {**values, "device": "cpu"}, "here"))
    batch = task.make_batch(np.zeros(60, np.int64), np.random.default_rng(0), 0)
    image = batch["img"].numpy().astype(float)
    mirrored = image[:, 40:56, :64].mean(axis=(1, 2, 3)) < image[:, 40:56, 64:].mean(axis=(1, 2, 3))
    at_the_right = batch["bboxes"][:, 0].numpy() > 0.5
    np.testing.assert_array_equal(at_the_right, mirrored[batch["batch_idx"].numpy().astype(int)])
    assert mirrored.mean() == pytest.approx(share, abs=0.2 if share == 0.5 else 0)


def test_a_probability_over_one_is_refused():
    with pytest.raises(ConfigError, match="flip"):
        build_config(YoloTrainConfig, {"flip": 1.5}, "here")
