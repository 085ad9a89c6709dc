"""What a network has to compute and to move at least, counted from OpenVINO's graphs."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from heatnet_ros.engines.openvino_package import openvino

# input and weights of these: (batch, channels, ...), see OpenVINO's operation set
_CONVOLUTIONS = ("Convolution", "GroupConvolution")
_TRANSPOSED = ("ConvolutionBackpropData", "GroupConvolutionBackpropData")
# layers of the compiled graph that move nothing: other shapes of the same memory, the graph's ends
_VIEWS = ("Reshape", "Input", "Output")
_BITS = {"u8": 8, "i8": 8, "bf16": 16, "f16": 16, "f32": 32}


class Traffic(NamedTuple):
    """Bytes of one run. weights: read once. activations: written once, read by each that takes it.

    activations contain the network's inputs and outputs.
    """

    weights: int
    activations: int

    @property
    def total(self) -> int:
        """Both."""
        return self.weights + self.activations


def set_batch(model: openvino.Model, batch: int) -> None:
    """Give every open dimension of the inputs, which are batches here, this size."""
    shapes = {}
    for port in model.inputs:
        sizes = port.get_partial_shape()
        shapes[port] = [batch if size.is_dynamic else size.get_length() for size in sizes]
    model.reshape(shapes)


def count_flops(model: openvino.Model) -> int:
    """Floating point operations of convolutions and matrix products, 2 for a multiply and add.

    All shapes must be known (``set_batch``). Everything else (activations, sums, softmax) is small
    beside them and not counted. Of a transposed convolution all products count, with those that
    padding cuts away.
    """
    return sum(map(_count_node, model.get_ordered_ops()))


def _count_node(node: Any) -> int:
    kind = node.get_type_name()
    if kind not in (*_CONVOLUTIONS, *_TRANSPOSED, "MatMul"):
        return 0
    first, second = (list(node.input(i).get_shape()) for i in range(2))
    if kind == "MatMul":
        inner = first[-2 if node.get_attributes()["transpose_a"] and len(first) > 1 else -1]
        return int(2 * math.prod(node.output(0).get_shape()) * inner)
    # groups stand before the channels: (groups, out, in, ...) or, transposed, (groups, in, out, ..)
    per_channel = second[1:] if kind.startswith("Group") else second
    if kind in _CONVOLUTIONS:  # each output value sums over the inputs and the window
        return int(2 * math.prod(node.output(0).get_shape()) * math.prod(per_channel[1:]))
    return int(2 * math.prod(first) * math.prod(per_channel[1:]))  # each input value is spread


def count_traffic(compiled: openvino.CompiledModel) -> Traffic:
    """Bytes that the compiled network's layers read and write, in the types that they are kept in.

    Of the graph as it runs, where activation functions and sums are part of their convolutions.
    All shapes must be known.
    """
    weights = activations = 0
    constant: dict[str, bool] = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        kind = node.rt_info["layerType"].value
        sources = [port.get_source_output() for port in node.inputs()]
        from_constants = [constant[source.get_node().get_friendly_name()] for source in sources]
        name = node.get_friendly_name()
        # what follows from constants alone is computed once, when the network is compiled
        constant[name] = kind == "Const" or (bool(sources) and all(from_constants))
        if constant[name] or kind in _VIEWS:
            continue
        activations += sum(_count_bits(port) for port in node.outputs())
        widest = _BITS.get(node.rt_info["runtimePrecision"].value, 64)
        for source, is_constant in zip(sources, from_constants, strict=True):
            if is_constant:  # a layer packs its weights in the precision that it computes in
                weights += _count_bits(source, widest)
            else:
                activations += _count_bits(source)
    return Traffic(weights // 8, activations // 8)


def _count_bits(port: Any, widest: int = 64) -> int:
    return int(math.prod(port.get_shape()) * min(port.get_element_type().bitwidth, widest))
