"""INT8 editions: what is written is quantized and near the float network, else nothing is."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

onnx = pytest.importorskip("onnx", reason="onnx is in the extra quantize")
pytest.importorskip("nncf", reason="nncf is in the extra quantize")

from onnx import helper  # noqa: E402
from onnx_models import F32, U8, save, tensor  # noqa: E402

from heatnet_ros.config import EngineConfig  # noqa: E402
from heatnet_ros.engines import load_engine  # noqa: E402
from heatnet_ros.errors import DataError, EngineError, ModelError  # noqa: E402
from heatnet_ros.manifest import load_manifest  # noqa: E402
from heatnet_ros.resources import find_resource  # noqa: E402
from heatnet_ros.training import parity, quantize  # noqa: E402
from heatnet_ros.training.model_folder import write_model_folder  # noqa: E402
from heatnet_ros.training.quantize import QuantizeOptions  # noqa: E402
from heatnet_ros.training.quantized_graph import find_float_layers, is_quantized, unpack_weights  # noqa: E402
from heatnet_ros.training.real_samples import RealImages  # noqa: E402

SIDE, ROWS = 64, 64
INT8 = EngineConfig(backend="openvino", precision="int8", device="cpu")
FP32 = EngineConfig(backend="openvino", precision="fp32", device="cpu")


def write_images(folder: Path, count: int) -> RealImages:
    """Smooth pictures: what a network sees is never noise alone."""
    scene = folder / "train" / "000000"
    (scene / "rgb").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)
        picture = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(scene / "rgb" / f"{i:06d}.png"), picture)
    camera = {"cam_K": [60.0, 0, 32, 0, 60, 32, 0, 0, 1], "depth_scale": 1.0}
    for name, content in (("camera", camera), ("gt", []), ("gt_info", [])):
        text = json.dumps({str(i): content for i in range(count)})
        (scene / f"scene_{name}.json").write_text(text)
    (folder / "models").mkdir()
    (folder / "models" / "models_info.json").write_text(json.dumps({"1": {"name": "thing"}}))
    return RealImages(folder, "train")


def write_model(folder: Path) -> Path:
    """A detector: three convolutions, whose last ones' channels are the edges of 64 boxes."""
    rng = np.random.default_rng(1)
    shapes = {"first": (16, 3, 3, 3), "second": (32, 16, 3, 3), "third": (4, 32, 3, 3)}
    weights = {
        name: rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)
        for name, shape in shapes.items()
    }

    def convolve(data: str, weight: str, out: str) -> list:
        node = helper.make_node(
            "Conv", [data, weight], [out + "_raw"], name=out, strides=[2, 2], pads=[1, 1, 1, 1]
        )
        return [node, helper.make_node("Relu", [out + "_raw"], [out], name=out + "_relu")]

    def step(kind: str, inputs: list[str], out: str, **attributes) -> list:
        return [helper.make_node(kind, inputs, [out], name=out, **attributes)]

    nodes = [
        *step("Cast", ["image"], "pixels", to=F32),
        *step("Transpose", ["pixels"], "planes", perm=[0, 3, 1, 2]),
        *step("Div", ["planes", "white"], "bright"),
        *convolve("bright", "first", "a"),
        *convolve("a", "second", "b"),
        *convolve("b", "third", "c"),
        *step("Reshape", ["c", "shape"], "flat"),
        *step("Transpose", ["flat"], "edges", perm=[0, 2, 1]),
        *step("Mul", ["edges", "side"], "boxes"),
        *step("Concat", ["boxes", "sure"], "detections", axis=2),
    ]
    sure = np.tile(np.array([0.9, 0.0], np.float32), (1, ROWS, 1))
    sure[0, :, 1] = np.arange(ROWS)  # a class each, so that a box has one partner
    path = save(
        folder.with_suffix(".onnx"), nodes, [tensor("image", U8, 1, SIDE, SIDE, 3)],
        [tensor("detections", F32, 1, ROWS, 6)], **weights, sure=sure,
        white=np.array(255.0, np.float32), side=np.array(16.0, np.float32),
        shape=np.array([1, 4, ROWS]),
    )  # fmt: skip
    entries = {
        "estimator": "yolo", "objects": ["thing"], "objects_hash": "", "input_hw": [SIDE, SIDE],
        "stride": 0, "keypoints": 0, "crop_margin": 1.0, "inputs": {"image": "image"},
        "outputs": {"detections": "detections"}, "accuracy": {}, "training": {"command": "test"},
    }  # fmt: skip
    write_model_folder(folder, path.read_bytes(), entries)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> RealImages:
    return write_images(tmp_path_factory.mktemp("data") / "mine", 40)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("float") / "net")


@pytest.fixture(scope="module")
def made(model, images, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("int8") / "net"
    quantize.quantize(model, out, QuantizeOptions(images, 20))
    return out


def test_the_file_is_quantized_and_its_manifest_tells(made, model):
    manifest = load_manifest(made)
    network = onnx.load(str(manifest.onnx_path))
    kinds = [node.op_type for node in network.graph.node]
    # activations are quantized at run time, weights are stored as they are rounded
    assert "QuantizeLinear" in kinds and is_quantized(network)
    stored = {t.name: t.data_type for t in network.graph.initializer}
    assert "second" not in stored and "first" in stored
    assert sum(kind == onnx.TensorProto.INT8 for kind in stored.values()) >= 2
    told = manifest.accuracy["int8"]
    assert told["calibration"]["samples"] == 30 and told["compared_samples"] == 10
    assert told["loss"]["boxes"] == 10 * ROWS and 0 < told["loss"]["p99_px"] < 4
    assert manifest.training["quantized_from"] == load_manifest(model).onnx_sha256
    assert "python -m heatnet_ros quantize" in manifest.training["quantized_by"]


def test_the_answers_are_near_those_of_the_float_network(made, model):
    rng = np.random.default_rng(7)  # pictures that neither calibration nor comparison saw
    picture = cv2.resize(rng.integers(0, 256, (5, 5, 3)).astype(np.uint8), (SIDE, SIDE))
    feed = {"image": picture[None]}
    before = load_engine(load_manifest(model).onnx_path, FP32).run(feed)["detections"]
    assert np.ptp(before[..., :4]) > 5
    for config in (INT8, EngineConfig(backend="onnxruntime", device="cpu")):
        after = load_engine(load_manifest(made).onnx_path, config).run(feed)["detections"]
        difference = np.abs(after - before).max()
        assert 0 < difference < 0.05 * np.ptp(before[..., :4])


def test_openvino_says_that_it_runs_int8(made, model):
    path = load_manifest(made).onnx_path
    for precision in ("auto", "fp32", "int8"):
        config = EngineConfig(backend="openvino", precision=precision, device="cpu")
        assert load_engine(path, config).description == "openvino CPU int8"
    with pytest.raises(EngineError, match=r"asks for int8.*not quantized.*heatnet_ros quantize"):
        load_engine(load_manifest(model).onnx_path, INT8)


def test_a_loss_over_the_limit_leaves_no_folder(model, images, tmp_path, monkeypatch):
    monkeypatch.setattr(quantize, "BOX_LIMITS", parity.Limits(p99_px=1e-6))
    with pytest.raises(ModelError, match=r"too much: p99_px .*allowed 1e-06.*Nothing was written"):
        quantize.quantize(model, tmp_path / "out", QuantizeOptions(images, 8))
    assert list(tmp_path.iterdir()) == []
    quantize.quantize(model, tmp_path / "out", QuantizeOptions(images, 8, force=True))
    loss = yaml.safe_load((tmp_path / "out" / "manifest.yaml").read_text())["accuracy"]["int8"]
    assert "p99_px" in loss["loss"]["over"]


def test_what_is_int8_already_is_refused(made, images, tmp_path):
    with pytest.raises(ModelError, match="INT8 already"):
        quantize.quantize(made, tmp_path / "out", QuantizeOptions(images, 8))


def test_calibration_and_comparison_share_no_sample(model, images):
    for samples in (8, 20, 300):
        calibration, checked = quantize._collect(
            load_manifest(model), QuantizeOptions(images, samples)
        )
        kept = {sample.feed["image"].tobytes() for sample in calibration}
        assert checked and len(kept) == len(calibration)
        assert not kept & {sample.feed["image"].tobytes() for sample in checked}


def test_a_data_set_that_is_missing_is_told(model, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        quantize.quantize(
            model, tmp_path / "out", QuantizeOptions(RealImages(tmp_path / "no", "t"))
        )


def test_first_convolutions_and_heads_stay_float():
    folder = find_resource("models/linemod_heatnet_rgbd", "Model")
    network = onnx.load(str(load_manifest(folder).onnx_path))
    unpack_weights(network)
    kept = set(find_float_layers(network))
    convolutions = [node.name for node in network.graph.node if node.op_type == "Conv"]
    assert kept & set(convolutions) == {"/net/rgb/conv1/Conv", "/net/depth/conv1/Conv"}
    assert {"/net/MatMul", "/Softmax", "/net/up.2.0/ConvTranspose", "/net/deep_scale/Mul"} <= kept
    assert not kept & {"/net/rgb/layer1/layer1.0/Add", "/net/rgb/maxpool/MaxPool"}
