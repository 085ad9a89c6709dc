"""Which backend runs where, and what is said when what was asked for is not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_models import save_convolution

from heatnet_ros import engines
from heatnet_ros.config import EngineConfig
from heatnet_ros.engines import choose_backend, load_engine
from heatnet_ros.errors import EngineError

ALL = {"tensorrt", "pycuda", "onnxruntime", "openvino"}


def stage(monkeypatch: pytest.MonkeyPatch, installed: set[str], gpu: bool, cuda: bool) -> None:
    monkeypatch.setattr(engines, "is_installed", lambda name: name in installed)
    monkeypatch.setattr(engines, "has_gpu", lambda: gpu)
    monkeypatch.setattr(engines, "_onnxruntime_has_cuda", lambda: cuda)


@pytest.mark.parametrize(
    ("backend", "device", "installed", "gpu", "cuda", "expected"),
    [
        ("auto", "auto", ALL, True, True, ("tensorrt", "cuda")),
        ("auto", "auto", ALL, False, True, ("openvino", "cpu")),
        ("auto", "auto", ALL - {"pycuda"}, True, True, ("onnxruntime", "cuda")),
        ("auto", "auto", ALL - {"tensorrt"}, True, False, ("openvino", "cpu")),
        ("auto", "auto", {"onnxruntime"}, True, False, ("onnxruntime", "cpu")),
        ("auto", "auto", {"onnxruntime"}, True, True, ("onnxruntime", "cuda")),
        ("auto", "cpu", ALL, True, True, ("openvino", "cpu")),
        ("auto", "cuda", ALL, True, True, ("tensorrt", "cuda")),
        ("auto", "cuda", {"onnxruntime"}, True, True, ("onnxruntime", "cuda")),
        ("tensorrt", "auto", ALL, True, False, ("tensorrt", "cuda")),
        ("openvino", "auto", ALL, True, True, ("openvino", "cpu")),
        ("onnxruntime", "auto", ALL, True, True, ("onnxruntime", "cuda")),
        ("onnxruntime", "auto", ALL, False, True, ("onnxruntime", "cpu")),
        ("onnxruntime", "cpu", ALL, True, True, ("onnxruntime", "cpu")),
        ("onnxruntime", "cuda", ALL, False, False, ("onnxruntime", "cuda")),  # it refuses itself
    ],
)
def test_choice(
    backend: str,
    device: str,
    installed: set[str],
    gpu: bool,
    cuda: bool,
    expected: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage(monkeypatch, installed, gpu, cuda)
    assert choose_backend(EngineConfig(backend, device=device)) == expected


@pytest.mark.parametrize(
    ("backend", "device", "installed", "gpu", "message"),
    [
        ("auto", "cuda", ALL, False, r"got no GPU.*pip install onnxruntime-gpu"),
        ("auto", "cuda", {"openvino"}, True, r"got a GPU without those.*pip install tensorrt"),
        ("tensorrt", "auto", ALL, False, "expected an NVIDIA GPU with its driver, got no GPU"),
        ("tensorrt", "cpu", ALL, True, "asks for cpu, tensorrt runs here on cuda only"),
        ("openvino", "cuda", ALL, True, "asks for cuda, openvino runs here on cpu only"),
        ("tensorrt", "auto", {"tensorrt"}, True, r"expected .*pycuda.*\(pip install pycuda\)"),
        ("tensorrt", "auto", set(), True, r"\(pip install tensorrt pycuda\)"),
    ],
)
def test_what_is_not_there_is_an_error(
    backend: str,
    device: str,
    installed: set[str],
    gpu: bool,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage(monkeypatch, installed, gpu, False)
    with pytest.raises(EngineError, match=message):
        choose_backend(EngineConfig(backend, device=device))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_convolution(tmp_path_factory.mktemp("onnx") / "conv.onnx", np.ones((8, 3, 3, 3)))


def test_cuda_without_its_provider_names_the_package(network: Path) -> None:
    if engines._onnxruntime_has_cuda():
        pytest.skip("this ONNX Runtime has the CUDA provider")
    config = EngineConfig("onnxruntime", device="cuda")
    with pytest.raises(EngineError, match=r"pip install onnxruntime-gpu.*engine\.device to cpu"):
        load_engine(network, config)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_precision_that_the_backend_lacks(backend: str, precision: str, network: Path) -> None:
    with pytest.raises(EngineError, match=f"asks for {precision}.*engine.backend to tensorrt"):
        load_engine(network, EngineConfig(backend, precision, device="cpu"))
