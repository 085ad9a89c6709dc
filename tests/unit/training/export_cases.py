"""Export: what is written runs, what differs is refused, what is killed leaves the old model."""

import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch", reason="torch is in the train extra (make test-train)")
onnx = pytest.importorskip("onnx", reason="onnx is in the train extra (make test-train)")

from heatnet_ros.config import EngineConfig, EstimatorConfig  # noqa: E402
from heatnet_ros.engines import load_engine  # noqa: E402
from heatnet_ros.errors import DataError, ModelError  # noqa: E402
from heatnet_ros.estimators.agreement import build_check  # noqa: E402
from heatnet_ros.estimators.heatnet import HeatNetEstimator  # noqa: E402
from heatnet_ros.geometry.camera import project  # noqa: E402
from heatnet_ros.geometry.se3 import make_transform, transform  # noqa: E402
from heatnet_ros.manifest import check_objects, load_manifest  # noqa: E402
from heatnet_ros.objects import load_objects  # noqa: E402
from heatnet_ros.resources import find_resource  # noqa: E402
from heatnet_ros.training import export, parity  # noqa: E402
from heatnet_ros.training.checkpoint import load_checkpoint  # noqa: E402
from heatnet_ros.training.heatnet import (  # noqa: E402
    PRESETS,
    DeployedHeatNet,
    HeatNet,
    HeatNetConfig,
)
from heatnet_ros.training.onnx_graph import fuse_batchnorm, round_weights  # noqa: E402
from heatnet_ros.training.real_samples import RealImages  # noqa: E402
from heatnet_ros.training.trained_objects import describe_objects  # noqa: E402
from heatnet_ros.types import Detection, Frame  # noqa: E402

pytestmark = pytest.mark.train
DEMO = find_resource("config/objects/demo.yaml", "Object library")
ROOT = DEMO.parents[2]
K = np.array([[600.0, 0, 79.5], [0, 600, 79.5], [0, 0, 1]])


def write_shard(folder: Path, rng: np.random.Generator) -> None:
    """Ten crops of nothing in particular, with true keypoints of the demo objects."""
    models = list(load_objects(DEMO).objects.values())
    count, size = 10, 160
    T = make_transform(np.eye(3), np.array([0.0, 0.0, 0.7]))
    index = np.arange(count) % len(models)
    points = [project(transform(T, models[i].keypoints_m), K) for i in index]
    coarse = rng.integers(0, 256, (count, 8, 8, 3))
    frames = rng.integers(0, 256, (4, 96, 128, 3)).astype(np.uint8)
    np.savez(
        folder / "shard_00000.npz",
        rgb=coarse.repeat(20, 1).repeat(20, 2).astype(np.uint8),
        depth=np.full((count, size, size), 7000, np.uint16),
        keypoints=np.array(points, np.float32),
        object=index.astype(np.int64),
        visible=np.ones(count, np.float32),
        mask=np.ones((count, size, size), np.uint8),
        box=np.tile(np.array([30, 30, 130, 130], np.float32), (count, 1)),
        T_camera_object=np.tile(T, (count, 1, 1)),
        K=np.tile(K, (count, 1, 1)),
        frames=frames,
        boxes=np.array([[0, 1, 0.2, 0.2, 0.6, 0.7, 1.0]]),
    )


def make_net(sharpness: float = 0.0, **changes) -> HeatNet:
    """An untrained network; ``sharpness`` makes peaks of its random features: sure of nonsense."""
    torch.manual_seed(0)
    library = load_objects(DEMO)
    keypoints = len(next(iter(library.objects.values())).keypoints_m)
    shape = PRESETS["lite"] | {"width": 8, "crop_px": 64, "decoder": 24} | changes
    net = HeatNet(HeatNetConfig(len(library.objects), keypoints, **shape))
    size = net.config.crop_px
    with torch.no_grad():
        for part in net.modules():  # statistics as after a training
            if isinstance(part, torch.nn.BatchNorm2d):
                part.running_mean.uniform_(-0.2, 0.2)
                part.running_var.uniform_(0.5, 2.0)
                part.weight.uniform_(0.5, 1.5)
        net.eval()
        if sharpness:
            inputs = torch.rand(4, 3, size, size) * 2 - 1, torch.rand(4, 2, size, size)
            logits = net(*inputs, torch.arange(4))
            logits = logits[0] if isinstance(logits, tuple) else logits
            net.head.mul_(sharpness / logits.std(dim=(2, 3)).mean())
    return net.eval()


@pytest.fixture
def bears_bf16(monkeypatch):
    """Peaks of random features are many and alike: lossy arithmetic picks others."""
    for kind in ("bf16", "fp16", "rounding"):
        monkeypatch.setitem(parity.LOSS, kind, parity.Limits(p99_px=1e3))


def save_run(folder: Path, data: Path, net: HeatNet) -> Path:
    folder.mkdir()
    state = {
        "net": net.state_dict(),
        "network": dataclasses.asdict(net.config),
        **describe_objects(load_objects(DEMO), keypoints=True),
        "config": {"objects_file": str(DEMO), "data": str(data), "validation_shards": 1},
        "command": "test", "commit": "none", "seen": 7,
    }  # fmt: skip
    torch.save(state, folder / "final.pt")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shard(folder, np.random.default_rng(0))
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    return save_run(tmp_path_factory.mktemp("runs") / "tiny", data, make_net())


@pytest.fixture(scope="module")
def sharp_run(data, tmp_path_factory) -> Path:
    return save_run(tmp_path_factory.mktemp("runs") / "sharp", data, make_net(sharpness=4.0))


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> Path:
    """By the command, as users do it."""
    out = tmp_path_factory.mktemp("models") / "tiny"
    command = [sys.executable, "-m", "heatnet_ros", "export", "--run", str(run), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def test_the_file_runs_in_the_estimator(exported):
    manifest, library = load_manifest(exported), load_objects(DEMO)
    check_objects(manifest, library)
    engine = load_engine(manifest.onnx_path, EngineConfig(backend="onnxruntime"))
    estimator = HeatNetEstimator(engine, manifest, EstimatorConfig(), library)
    camera = np.array([[600.0, 0, 319.5], [0, 600, 239.5], [0, 0, 1]])
    depth = np.full((480, 640), 0.7, np.float32)
    frame = Frame(np.full((480, 640, 3), 90, np.uint8), camera, depth)
    boxes = [Detection(name, (200.0, 150, 300, 260), 0.9) for name in ("mug", "pulley", "valve")]
    assert len(estimator.estimate(frame, boxes)) == 3
    assert sorted(p.name for p in exported.iterdir()) == sorted(
        ["manifest.yaml", f"model-{manifest.onnx_sha256[:12]}.onnx"]
    )


def test_the_manifest_tells_parity_rounding_and_loss_apart(sharp_run, tmp_path, bears_bf16):
    path = export.export(sharp_run, tmp_path / "out", export.ExportOptions(samples=3))
    accuracy = load_manifest(tmp_path / "out").accuracy
    for backend in ("onnxruntime CPU fp32", "openvino CPU fp32"):
        found = accuracy["parity"][backend]
        assert found["keypoints"] > 100 and found["max_px"] < 0.1 and found["max_heatmap"] < 1e-3
    assert accuracy["parity"]["limits"]["max_px"] == 0.1
    assert accuracy["parity"]["limits"]["max_pose_mm"] == 0.1
    # stored weights are exactly those of the reference, so rounding shows here and only here
    assert accuracy["rounding"]["max_heatmap"] > 5 * found["max_heatmap"]
    assert all("fp32" not in name for name in accuracy["precision_loss"])
    assert accuracy["compared_samples"] == {"held out": 10}
    check_kept_samples(path)


def check_kept_samples(path):
    """Three of the compared inputs, for a backend to judge its arithmetic on."""
    manifest = load_manifest(path.parent)
    assert manifest.training["exported_by"].endswith("--samples 3")
    check = build_check(manifest)
    assert check.real and len(check.samples) == 3
    engine = load_engine(path, EngineConfig(backend="onnxruntime"))
    answers = [engine.run(sample) for sample in check.samples]
    same = check.compare(answers, answers)
    assert same.px == 0 and same.compared > 0
    images = [sample["rgb"] for sample in check.samples]
    assert not np.array_equal(images[0], images[1])
    (path.parent / "calibration.npz").unlink()
    assert not build_check(manifest).real


def test_a_network_sure_of_nothing_is_told_and_with_real_images_refused(run, tmp_path, capsys):
    export.export(run, tmp_path / "out")
    assert "no keypoints and no poses could be compared" in capsys.readouterr().out
    compared = load_manifest(tmp_path / "out").accuracy["parity"]["compared"]
    assert compared == {"keypoints": 0, "poses": 0}
    folder = tmp_path / "real" / "test" / "000001"
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    grey = np.full((480, 640), 120, np.uint8)
    cv2.imwrite(str(folder / "rgb" / "000000.png"), grey)
    cv2.imwrite(str(folder / "depth" / "000000.png"), np.full((480, 640), 800, np.uint16))
    truth = {"obj_id": 1, "cam_R_m2c": np.eye(3).ravel().tolist(), "cam_t_m2c": [0, 0, 800.0]}
    for name, content in (
        ("scene_camera", {"cam_K": K.ravel().tolist(), "depth_scale": 1.0}),
        ("scene_gt", [truth]),
        ("scene_gt_info", [{"bbox_visib": [200, 150, 140, 140], "visib_fract": 0.9}]),
    ):
        (folder / f"{name}.json").write_text(json.dumps({"0": content}))
    models = tmp_path / "real" / "models"
    models.mkdir()
    (models / "models_info.json").write_text(json.dumps({"1": {"name": "mug"}}))
    images = RealImages(tmp_path / "real", "test")
    with pytest.raises(ModelError, match=r"in 11 samples no keypoints and no poses.*Train longer"):
        export.export(run, tmp_path / "other", export.ExportOptions(images=images))
    assert not (tmp_path / "other").exists()


def test_a_loss_over_its_bound_is_refused(sharp_run, tmp_path, monkeypatch):
    monkeypatch.setitem(parity.LOSS, "rounding", parity.Limits(p99_px=1e-9))
    with pytest.raises(ModelError, match=r"Rounding .* p99_px .*allowed 1e-09.*--weights fp32"):
        export.export(sharp_run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_bf16_breaks_is_exported_and_kept_from_it(run, tmp_path, monkeypatch):
    monkeypatch.setitem(parity.LOSS, "bf16", parity.Limits(max_heatmap=1e-12))
    export.export(run, tmp_path / "out")
    manifest = load_manifest(tmp_path / "out")
    assert not manifest.bf16 and manifest.choose_engine(EngineConfig()).precision == "fp32"
    losses = manifest.accuracy["precision_loss"]
    assert all("max_heatmap" in loss["over"] for loss in losses.values())
    monkeypatch.setitem(parity.LOSS, "bf16", parity.Limits())
    export.export(run, tmp_path / "out")
    assert load_manifest(tmp_path / "out").bf16 is bool(losses)  # not measured is not borne


@pytest.mark.parametrize(
    "changes",
    [
        {"condition": "all"},
        {"condition": "decoder", "stem": "light", "lateral_place": "inside", "deep_head": True},
        {"condition": "all", "rgbd": False, "confidence": True, "activation": "mish"},
        {"loss": "focal", "sigma": 2.0, "lateral": False, "activation": "silu", "decoder_fine": 16},
    ],
)
def test_every_kind_of_network_is_exported(changes, data, tmp_path, bears_bf16):
    # the focal loss' sigmoid saturates, and equal peaks are ambiguous: there heatmaps are compared
    sharpness = 0.0 if changes.get("loss") == "focal" else 4.0
    run = save_run(tmp_path / "run", data, make_net(sharpness, **changes))
    state = torch.load(run / "final.pt", weights_only=True)
    state["config"] |= {"optimizer": "muon", "condition": changes.get("condition", "head")}
    torch.save(state | {"optimizer": {"state": {}}}, run / "checkpoint.pt")
    (run / "final.pt").unlink()  # of a training that goes on
    path = export.export(run, tmp_path / "out")
    manifest = load_manifest(tmp_path / "out")
    assert manifest.training["checkpoint"] == "checkpoint.pt"
    assert set(manifest.inputs) == {"rgb", "object_index"} | (
        {"depth"} if changes.get("rgbd", True) else set()
    )
    assert ("confidence" in manifest.outputs) == changes.get("confidence", False)
    found = manifest.accuracy["parity"]
    for backend in ("onnxruntime CPU fp32", "openvino CPU fp32"):
        assert found[backend]["max_px"] < 0.1 and found[backend]["max_heatmap"] < 1e-3
    model = onnx.load(str(path))
    assert model.opset_import[0].version >= 17
    assert not [t for t in model.graph.initializer if "coarse" in t.name]


def test_large_weights_are_stored_as_float16(exported):
    weights = onnx.load(str(load_manifest(exported).onnx_path)).graph.initializer
    assert {w.data_type for w in weights if np.prod(w.dims) > 5000} == {onnx.TensorProto.FLOAT16}


def test_float32_weights_are_stored_as_they_are(run, tmp_path):
    path = export.export(run, tmp_path / "out", export.ExportOptions(weights="fp32"))
    weights = onnx.load(str(path)).graph.initializer
    assert onnx.TensorProto.FLOAT16 not in {w.data_type for w in weights}
    assert "rounding" not in load_manifest(tmp_path / "out").accuracy


def test_an_fp16_graph_computes_in_float16_behind_the_same_contract(
    sharp_run, tmp_path, bears_bf16
):
    path = export.export(sharp_run, tmp_path / "half", export.ExportOptions(precision="fp16"))
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(path))).graph
    types = {v.name: v.type.tensor_type.elem_type for v in graph.value_info}
    convolutions = [node.output[0] for node in graph.node if node.op_type.startswith("Conv")]
    assert {types[name] for name in convolutions} == {onnx.TensorProto.FLOAT16}
    manifest = load_manifest(tmp_path / "half")
    engine = load_engine(path, EngineConfig(backend="onnxruntime"))
    HeatNetEstimator(engine, manifest, EstimatorConfig(), load_objects(DEMO))  # checks tensors
    losses = manifest.accuracy["precision_loss"]
    assert {"PyTorch CPU fp16", "onnxruntime CPU fp32, fp16 file"} <= set(losses)
    assert losses["PyTorch CPU fp16"]["p99_px"] > 1e-3


@pytest.mark.parametrize("sharp", [False, True])  # unsure of everything, sure of something
def test_a_file_that_differs_from_the_network_is_refused(
    sharp, run, sharp_run, exported, monkeypatch, bears_bf16
):
    before = {path.name: path.read_bytes() for path in exported.iterdir()}
    build = export.build_onnx

    def damage(*arguments, **options):
        model = build(*arguments, **options)
        tensor = max(model.graph.initializer, key=lambda t: np.prod(t.dims))
        array = onnx.numpy_helper.to_array(tensor).copy()
        if sharp:
            array.flat[np.abs(array).argmax()] *= 1.25  # one weight of thousands
        else:
            array *= np.float16(1.25)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        return model

    monkeypatch.setattr(export, "build_onnx", damage)
    with pytest.raises(ModelError, match=r"Parity of model\.onnx on onnxruntime CPU fp32 failed"):
        export.export(sharp_run if sharp else run, exported)
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == before
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]


def test_learned_confidence_becomes_an_output(data, tmp_path, bears_bf16):
    net = make_net(sharpness=16.0, confidence=True, dense_head=True)
    run = save_run(tmp_path / "sure", data, net)
    path = export.export(run, tmp_path / "out")
    manifest = load_manifest(tmp_path / "out")
    assert manifest.outputs == {"heatmaps": "heatmaps", "confidence": "confidence"}
    assert manifest.accuracy["parity"]["openvino CPU fp32"]["max_confidence"] < 1e-3
    assert not [t for t in onnx.load(str(path)).graph.initializer if "dense" in t.name]


@pytest.mark.parametrize(
    ("precision", "input_hw"), [("fp32", None), ("fp16", None), ("fp32", (128, 160))]
)
def test_a_detector_is_exported_and_compared(precision, input_hw, data, tmp_path, monkeypatch):
    pytest.importorskip("ultralytics", reason="ultralytics is in the train extra")
    torch.manual_seed(0)
    net = export.build_yolo(len(load_objects(DEMO).objects), "n", 1)
    for part in net.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0
    logits = []
    with torch.no_grad():  # statistics as after a training, and sure of something
        net.train()(torch.rand(2, 3, 96, 128))
        heads = [head[-1] for head in net.model[-1].one2one_cv3]
        for head in heads:
            head.weight.normal_(0, 0.5)
            head.bias.zero_()
            head.register_forward_hook(lambda _, __, found: logits.append(found))
        frames = torch.from_numpy(np.load(data / "shard_00000.npz")["frames"])
        net.eval()(frames.permute(0, 3, 1, 2) / 255.0)
        for head, found in zip(heads, logits, strict=True):
            head.weight.mul_(1.5 / found.std())
            head.bias.copy_(-3.0 - 1.5 * found.mean(dim=(0, 2, 3)) / found.std())
    run = tmp_path / "yolo"
    run.mkdir()
    config = {"objects_file": str(DEMO), "data": str(data), "validation_shards": 1}
    state = {"net": net.state_dict(), "config": config, "input_hw": [96, 128]}
    state |= describe_objects(load_objects(DEMO), keypoints=False)
    torch.save(state | {"command": "test", "commit": "none", "seen": 1}, run / "final.pt")
    for kind in ("bf16", "fp16", "rounding"):
        monkeypatch.setitem(parity.BOX_LOSS, kind, parity.Limits(p99_px=np.inf))
    options = export.ExportOptions(precision, input_hw=input_hw, samples=2)
    path = export.export(run, tmp_path / "out", options)
    accuracy = load_manifest(tmp_path / "out").accuracy
    if precision == "fp32":
        found = accuracy["parity"]["onnxruntime CPU fp32"]
        assert found["boxes"] > 0 and found["max_px"] < 0.1
    else:
        assert "openvino CPU fp32, fp16 file" in accuracy["precision_loss"]
    engine = load_engine(path, EngineConfig(backend="onnxruntime"))
    size = input_hw or (96, 128)
    rows = engine.run({"image": np.zeros((1, *size, 3), np.uint8)})["detections"]
    assert rows.shape[0] == 1 and rows.shape[2] == 6 and np.isfinite(rows).all()
    content = yaml.safe_load((tmp_path / "out" / "manifest.yaml").read_text())
    assert content["objects"] == list(load_objects(DEMO).objects)
    assert content["input_hw"] == list(size)
    kept = build_check(load_manifest(tmp_path / "out"))
    assert kept.real and [s["image"].shape for s in kept.samples] == [(1, *size, 3)] * 2


def test_fusing_keeps_the_function_and_removes_every_normalisation():
    net = DeployedHeatNet(make_net()).eval()
    inputs = {
        "rgb": torch.randint(0, 255, (2, 64, 64, 3), dtype=torch.uint8),
        "object_index": torch.tensor([0, 3]),
        "depth": torch.rand(2, 2, 64, 64),
    }
    fused = fuse_batchnorm(net, inputs)
    assert not [m for m in fused.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        torch.testing.assert_close(fused(**inputs), net(**inputs), atol=1e-4, rtol=1e-3)


def test_a_weight_beyond_float16_is_named():
    net = make_net()
    with torch.no_grad():
        net.head[0, 0, 0] = 1e6
    with pytest.raises(ModelError, match=r"'head' reaches 1e\+06.*--weights fp32"):
        round_weights(net, everything=False)


class WritesAFile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "code ran"))


def test_a_checkpoint_that_runs_code_is_refused(tmp_path, run):
    trap = tmp_path / "trap"
    trap.mkdir()
    written = tmp_path / "written"
    state = torch.load(run / "final.pt", weights_only=True) | {"extra": WritesAFile(written)}
    torch.save(state, trap / "final.pt")
    with pytest.raises(ModelError, match=r"is refused.*code"):
        export.export(trap, tmp_path / "out")
    (trap / "final.pt").write_bytes(pickle.dumps(WritesAFile(written)))  # torch's oldest format
    with pytest.raises(ModelError, match="is refused"):
        export.export(trap, tmp_path / "out")
    assert not written.exists() and not (tmp_path / "out").exists()
    pickle.loads((trap / "final.pt").read_bytes())
    assert written.read_text() == "code ran"  # the trap is a real one


def test_damaged_and_foreign_checkpoints_are_named(run, tmp_path):
    whole = (run / "final.pt").read_bytes()
    broken = tmp_path / "final.pt"
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"final\.pt"):
        load_checkpoint(broken)
    torch.save({"net": {}}, broken)
    with pytest.raises(ModelError, match="no entry config"):
        load_checkpoint(broken, ("net", "config"))
    torch.save(torch.load(run / "final.pt", weights_only=True) | {"net": {}}, broken)
    with pytest.raises(ModelError, match="do not fit the network"):
        export.export(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("entries", "message"),
    [({"objects_hash": "0" * 64}, r"other keypoints or symmetries than .*demo\.yaml now defines"),
     ({"objects": ["mug", "bracket"]}, r"trained for mug, bracket in this order"),
     ({"objects_hash": None}, r"expected the entry 'objects_hash', got none")],
)  # fmt: skip
def test_a_network_of_other_objects_is_not_exported(entries, message, run, tmp_path):
    state = torch.load(run / "final.pt", weights_only=True) | entries
    torch.save({k: v for k, v in state.items() if v is not None}, tmp_path / "final.pt")
    with pytest.raises(ModelError, match=message):
        export.export(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_runs_and_shards_are_named(tmp_path):
    with pytest.raises(ModelError, match=r"neither final\.pt nor checkpoint\.pt"):
        export.export(tmp_path, tmp_path / "out")
    run = save_run(tmp_path / "run", tmp_path, make_net())
    with pytest.raises(DataError, match="No shards"):
        export.export(run, tmp_path / "out")
