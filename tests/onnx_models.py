"""Small real ONNX files: a convolution, and networks that answer with fixed arrays."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

U8, F32, I64 = TensorProto.UINT8, TensorProto.FLOAT, TensorProto.INT64


def save(
    path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], **arrays: Any
) -> Path:
    initializers = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "test", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def tensor(name: str, kind: int, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def save_convolution(path: Path, weight: np.ndarray) -> Path:
    """rgb uint8 [n,16,16,3] -> y float32 [n,C,14,14]: weight (C, 3, 3, 3) on pixel values."""
    nodes = [
        helper.make_node("Cast", ["rgb"], ["pixels"], to=F32),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weight"], ["y"]),
    ]
    inputs = [tensor("rgb", U8, "n", 16, 16, 3)]
    outputs = [tensor("y", F32, "n", len(weight), 14, 14)]
    return save(path, nodes, inputs, outputs, weight=weight.astype(np.float32))


def save_detector(path: Path, rows: np.ndarray, size_hw: tuple[int, int]) -> Path:
    """images uint8 [1,H,W,3] -> output0 float32 [1,M,6], always ``rows``."""
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=F32),
        helper.make_node("ReduceMax", ["pixels"], ["top"], keepdims=0),
        helper.make_node("Mul", ["top", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "rows"], ["output0"]),
    ]
    inputs = [tensor("images", U8, 1, *size_hw, 3)]
    outputs = [tensor("output0", F32, 1, len(rows), 6)]
    zero = np.zeros(1, np.float32)
    return save(path, nodes, inputs, outputs, rows=rows[None].astype(np.float32), zero=zero)


def save_heatnet(path: Path, maps: np.ndarray, size_px: int, batch: int | str = "n") -> Path:
    """rgb, object_index, depth -> heatmaps [n,K,h,w]: ``maps`` (objects, K, h, w) by index."""
    nodes = [
        helper.make_node("Cast", ["rgb"], ["pixels"], to=F32),
        helper.make_node("ReduceMean", ["pixels"], ["gray"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("ReduceMean", ["depth"], ["far"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Add", ["gray", "far"], ["seen"]),
        helper.make_node("Mul", ["seen", "zero"], ["nothing"]),
        helper.make_node("Gather", ["maps", "object_index"], ["picked"], axis=0),
        helper.make_node("Add", ["picked", "nothing"], ["heatmaps"]),
    ]
    inputs = [
        tensor("rgb", U8, batch, size_px, size_px, 3),
        tensor("object_index", I64, batch),
        tensor("depth", F32, batch, 2, size_px, size_px),
    ]
    outputs = [tensor("heatmaps", F32, batch, *maps.shape[1:])]
    zero = np.zeros(1, np.float32)
    return save(path, nodes, inputs, outputs, maps=maps.astype(np.float32), zero=zero)


def save_manifest(folder: Path, onnx_path: Path, **values: Any) -> Path:
    content = {
        "onnx_file": onnx_path.name,
        "onnx_sha256": hashlib.sha256(onnx_path.read_bytes()).hexdigest(),
        "objects_hash": "", "stride": 0, "keypoints": 0, "crop_margin": 1.0,
        "training": {}, "accuracy": {},
    }  # fmt: skip
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump(content | values))
    return path
