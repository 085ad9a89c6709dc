"""What quantization needs to know of an ONNX graph, and what it tidies afterwards."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper


def is_quantized(network: onnx.ModelProto) -> bool:
    """Whether the file itself says which tensors are INT8."""
    return any(node.op_type == "DequantizeLinear" for node in network.graph.node)


def unpack_weights(network: onnx.ModelProto) -> None:
    """Turn float16 weights behind a Cast into float32 ones, in place: nncf looks for constants."""
    graph = network.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in list(graph.node):
        if node.op_type == "Cast" and node.input[0] in stored:
            tensor = stored[node.input[0]]
            array = numpy_helper.to_array(tensor)
            kind = onnx.helper.tensor_dtype_to_np_dtype(node.attribute[0].i)
            tensor.CopyFrom(numpy_helper.from_array(array.astype(kind), node.output[0]))
            graph.node.remove(node)


def find_float_layers(network: onnx.ModelProto) -> list[str]:
    """Names of the layers that stay in float.

    Up to the first convolutions: they see pixels and depth, they are small, and OpenVINO 2026.4
    finds no implementation of them in INT8 beside bf16. What follows the last convolution: there
    heatmaps and boxes are made. Transposed convolutions: OpenVINO computes them in float anyway.
    Products of two changing tensors that are no activation: gains and heads chosen by object.
    """
    nodes = list(network.graph.node)
    begun = _mark(nodes)
    open_ended = _mark([_reversed(node) for node in reversed(nodes)])
    made_by = {name: node.op_type for node in nodes for name in node.output}
    kept = []
    for node in nodes:
        is_first = not any(begun.get(name) for name in node.input)
        is_last = node.op_type != "Conv" and not any(open_ended.get(n) for n in node.output)
        gates = {made_by.get(name) for name in node.input}
        is_gain = node.op_type in ("Mul", "MatMul") and "Sigmoid" not in gates
        if is_first or is_last or is_gain or node.op_type in ("ConvTranspose", "Softmax"):
            kept.append(node.name)
    return kept


def _mark(nodes: list[onnx.NodeProto]) -> dict[str, bool]:
    """Tensor -> whether a convolution lies before it, along ``nodes`` in their order."""
    marked: dict[str, bool] = {}
    for node in nodes:
        behind = node.op_type == "Conv" or any(marked.get(name) for name in node.input)
        for name in node.output:
            marked[name] = marked.get(name, False) or behind
    return marked


def _reversed(node: onnx.NodeProto) -> onnx.NodeProto:
    return onnx.helper.make_node(node.op_type, node.output, node.input)


def fold_quantized_weights(network: onnx.ModelProto) -> None:
    """Store weights as the INT8 numbers that they are rounded to, in place: a quarter of the file.

    nncf leaves float weights in front of their QuantizeLinear.
    """
    graph = network.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in list(graph.node):
        if node.op_type != "QuantizeLinear" or any(name not in stored for name in node.input):
            continue
        weight, scale, zero = (numpy_helper.to_array(stored[name]) for name in node.input)
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        if scale.ndim:
            shape = [1] * weight.ndim
            shape[axis] = -1
            scale, zero = scale.reshape(shape), zero.reshape(shape)
        limits = np.iinfo(zero.dtype)
        rounded = np.clip(np.rint(weight / scale) + zero, limits.min, limits.max)
        graph.initializer.append(
            numpy_helper.from_array(rounded.astype(zero.dtype), node.output[0])
        )
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)
