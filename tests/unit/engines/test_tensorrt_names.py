"""Every run-time name of TensorRT that tensorrt.py uses exists in the real bindings.

NVIDIA's lean run time imports without a GPU: pip install tensorrt-lean-cu13-bindings
tensorrt-lean-cu13-libs (45 MB). It has no builder, so tensorrt_build.py is not checked here.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import heatnet_ros

SOURCE = Path(heatnet_ros.__file__).parent / "engines" / "tensorrt.py"
# variable or attribute in tensorrt.py -> class of the bindings that it holds
HOLDS = {
    "network": "ICudaEngine", "_engine": "ICudaEngine", "runtime": "Runtime",
    "context": "IExecutionContext", "_context": "IExecutionContext",
}  # fmt: skip
# enumerations whose members are used by name through a table
TYPES = {"FLOAT", "HALF", "INT8", "UINT8", "INT32", "INT64", "BOOL"}


def used_names(source: str) -> set[str]:
    """Dotted names under ``trt``: what is taken from the module, or from what ``HOLDS`` names."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute):
            continue
        text = ast.unparse(node)
        owner = text.split(".")[-2]
        if text.startswith("trt."):
            found.add(text.removeprefix("trt."))
        elif owner in HOLDS:
            found.add(f"{HOLDS[owner]}.{node.attr}")
    return found


def test_the_extraction_sees_modules_variables_and_attributes() -> None:
    source = "trt.Logger.WARNING\nself._context.execute_async_v3(1)\nnetwork.num_io_tensors"
    assert used_names(source) == {
        "Logger", "Logger.WARNING", "IExecutionContext.execute_async_v3",
        "ICudaEngine.num_io_tensors",
    }  # fmt: skip
    used = used_names(SOURCE.read_text())
    assert {"Runtime", "IExecutionContext.set_tensor_address"} < used
    assert len(used) > 15


def test_tensorrt_has_every_name_that_is_used() -> None:
    trt = pytest.importorskip(
        "tensorrt_lean_bindings",
        reason="tensorrt-lean-cu13-bindings and tensorrt-lean-cu13-libs are not installed",
    )
    used = used_names(SOURCE.read_text()) | {f"DataType.{name}" for name in TYPES}
    # asked for with hasattr: it left with TensorRT 11
    missing = []
    for name in sorted(used - {"BuilderFlag.FP16"}):
        value = trt
        for part in name.split("."):
            value = getattr(value, part, None)
        if value is None:
            missing.append(name)
    assert not missing, f"TensorRT {trt.__version__} has no {', '.join(missing)}"
