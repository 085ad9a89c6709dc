"""Both backends on small real ONNX files."""

from pathlib import Path

import numpy as np
import pytest
from onnx_models import save_convolution

from heatnet_ros import engines
from heatnet_ros.config import EngineConfig
from heatnet_ros.engines import TensorSpec, load_engine
from heatnet_ros.engines.openvino_package import openvino
from heatnet_ros.errors import EngineError, ModelError

BACKENDS = ("openvino", "onnxruntime")
HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
# 1 in bf16, which has 7 bits behind the point
ALMOST_ONE = 1.0 + 2.0**-10


@pytest.fixture(scope="module")
def weight() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(8, 3, 3, 3)) / 255


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, weight: np.ndarray) -> Path:
    return save_convolution(tmp_path_factory.mktemp("onnx") / "conv.onnx", weight)


@pytest.fixture(scope="module")
def almost_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weight = np.zeros((8, 3, 3, 3))
    weight[:, 0, 1, 1] = ALMOST_ONE
    return save_convolution(tmp_path_factory.mktemp("onnx") / "almost.onnx", weight)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 16, 16, 3), np.uint8)


def convolve(rgb: np.ndarray, weight: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(rgb.astype(float), (3, 3), axis=(1, 2))
    return np.einsum("nhwcij,ocij->nohw", windows, weight)


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_batch_gives_the_right_numbers(backend: str, network: Path, weight: np.ndarray) -> None:
    engine = load_engine(network, EngineConfig(backend=backend, precision="fp32"))
    for count in (1, 3, 2, 7, 9):
        out = engine.run({"rgb": images(count)})
        assert out.keys() == {"y"}
        np.testing.assert_allclose(out["y"], convolve(images(count), weight), atol=1e-5)


def test_openvino_keeps_no_memory_of_a_large_batch(network: Path) -> None:
    """It keeps what its largest batch took: more are run in parts."""
    engine = load_engine(network, EngineConfig(backend="openvino", precision="fp32"))
    for count in (17, 200):
        assert len(engine.run({"rgb": images(count)})["y"]) == count
        assert engine._request.get_input_tensor(0).shape[0] <= 16


@pytest.mark.parametrize("backend", BACKENDS)
def test_tensors_are_described(backend: str, network: Path) -> None:
    engine = load_engine(network, EngineConfig(backend=backend))
    assert engine.inputs == (TensorSpec("rgb", (None, 16, 16, 3), np.dtype("uint8")),)
    assert engine.outputs == (TensorSpec("y", (None, 8, 14, 14), np.dtype("float32")),)
    assert str(engine.inputs[0]) == "rgb uint8[?,16,16,3]"


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_belong_to_the_caller(backend: str, network: Path) -> None:
    engine = load_engine(network, EngineConfig(backend=backend))
    first = engine.run({"rgb": images(2)})["y"]
    before = first.copy()
    engine.run({"rgb": 255 - images(2)})
    np.testing.assert_array_equal(first, before)


def test_views_that_are_not_contiguous_are_read_right(network: Path, weight: np.ndarray) -> None:
    engine = load_engine(network, EngineConfig(backend="openvino", precision="fp32"))
    mirrored = images(1)[:, :, ::-1]
    np.testing.assert_allclose(
        engine.run({"rgb": mirrored})["y"], convolve(mirrored, weight), atol=1e-5
    )


@pytest.mark.parametrize(
    "config",
    [EngineConfig(backend=b, precision=p) for b in BACKENDS for p in ("auto", "fp32")]
    + [EngineConfig(), EngineConfig(backend="openvino", precision="bf16")],
    ids=str,
)
def test_reported_precision_is_what_runs(config: EngineConfig, almost_one: Path) -> None:
    if config.precision == "bf16" and not HAS_BF16:
        with pytest.raises(EngineError, match=r"bf16.*does not compute"):
            load_engine(almost_one, config)
        return
    engine = load_engine(almost_one, config)
    value = engine.run({"rgb": np.ones((1, 16, 16, 3), np.uint8)})["y"]
    backend, device, precision = engine.description.split()
    assert device == "CPU"
    assert config.backend in ("auto", backend)
    assert config.precision in ("auto", precision)
    expected = {"fp32": ALMOST_ONE, "bf16": 1.0}[precision]
    np.testing.assert_array_equal(value, np.full_like(value, expected))


def test_auto_takes_bf16_where_the_cpu_has_it(network: Path) -> None:
    description = load_engine(network, EngineConfig()).description
    assert description == ("openvino CPU bf16" if HAS_BF16 else "openvino CPU fp32")


def test_auto_without_openvino(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "is_installed", lambda name: name == "onnxruntime")
    assert load_engine(network, EngineConfig()).description == "onnxruntime CPU fp32"
    with pytest.raises(EngineError, match=r"'openvino' is not installed.*pip install openvino"):
        load_engine(network, EngineConfig(backend="openvino"))
    with pytest.raises(EngineError, match=r"fp32.*asks for bf16.*precision to auto"):
        load_engine(network, EngineConfig(precision="bf16"))


def test_no_backend_at_all(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "is_installed", lambda name: False)
    with pytest.raises(EngineError, match=r"'auto' is not installed.*openvino or onnxruntime"):
        load_engine(network, EngineConfig())


@pytest.mark.parametrize("backend", BACKENDS)
def test_damaged_or_missing_file(backend: str, network: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(network.read_bytes()[:200])
    for path in (damaged, tmp_path / "absent.onnx"):
        with pytest.raises(ModelError, match=f"cannot load .*{path.name}.*Restore"):
            load_engine(path, EngineConfig(backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "tensors",
    [
        {"rgb": np.zeros((1, 16, 20, 3), np.uint8)},
        {"image": np.zeros((1, 16, 16, 3), np.uint8)},
        {},
    ],
    ids=["shape", "name", "none"],
)
def test_tensors_that_do_not_fit(
    backend: str, tensors: dict[str, np.ndarray], network: Path
) -> None:
    engine = load_engine(network, EngineConfig(backend=backend))
    with pytest.raises(EngineError, match="could not run"):
        engine.run(tensors)
    assert engine.run({"rgb": images(1)})["y"].shape == (1, 8, 14, 14)  # it lives on
