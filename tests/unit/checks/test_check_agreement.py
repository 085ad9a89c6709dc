"""An engine whose arithmetic changes the answers is called so, against real ONNX Runtime."""

from types import SimpleNamespace

import numpy as np
import pytest
from onnx_models import save_convolution

from heatnet_ros.checks.files import _check_agreement
from heatnet_ros.checks.finding import Level
from heatnet_ros.config import EngineConfig
from heatnet_ros.engines import Check, Difference, load_engine


@pytest.mark.parametrize(("off", "level"), [(0.0, Level.OK), (3.0, Level.ERROR)])
def test_reduced_precision_is_compared_with_fp32(tmp_path, off, level):
    path = save_convolution(tmp_path / "conv.onnx", np.ones((2, 3, 3, 3)))
    real = load_engine(path, EngineConfig(backend="onnxruntime"))
    sample = {"rgb": np.full((1, 16, 16, 3), 7, np.uint8)}

    def compare(expected, got):
        px = float(np.abs(expected[0]["y"] - got[0]["y"]).max())
        return Difference(px, 4, px)

    half = SimpleNamespace(
        description="tensorrt GPU fp16", run=lambda tensors: {"y": real.run(tensors)["y"] + off}
    )
    [found] = _check_agreement("estimator", path, half, Check((sample,), True, compare, 0.5))
    assert found.level is level and "tensorrt GPU fp16" in found.evidence
    if off:
        assert "differ by 3 px (allowed 0.5)" in found.evidence and "fp32" in found.remedy
    # a drawn pattern proves nothing
    assert not list(_check_agreement("x", path, half, Check((sample,), False, compare, 0.5)))
