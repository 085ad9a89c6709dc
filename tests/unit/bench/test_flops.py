"""FLOPs and bytes of layers whose numbers can be written down."""

import numpy as np
import pytest

from heatnet_ros.bench.flops import Traffic, count_flops, count_traffic, set_batch
from heatnet_ros.engines.openvino_package import openvino

ops = openvino.opset13


def parameter(*shape: int):
    return ops.parameter(list(shape), np.float32)


def constant(*shape: int):
    return ops.constant(np.random.default_rng(0).normal(size=shape).astype(np.float32))


def convolution():
    x = parameter(2, 3, 16, 20)
    y = ops.convolution(x, constant(8, 3, 3, 5), [2, 1], [1, 2], [1, 2], [1, 1])
    return x, y, 2 * (2 * 8 * 8 * 20) * 3 * 3 * 5  # 8x20 outputs, each a sum over 3x3x5


def grouped():
    x = parameter(1, 12, 10, 10)
    y = ops.group_convolution(x, constant(4, 2, 3, 3, 3), [1, 1], [0, 0], [0, 0], [1, 1])
    return x, y, 2 * (8 * 8 * 8) * 3 * 3 * 3  # 4 groups of 2 outputs, each of 3 channels


def transposed():
    x = parameter(2, 6, 8, 8)
    y = ops.convolution_backprop_data(x, constant(6, 5, 4, 4), [2, 2])
    return x, y, 2 * (2 * 6 * 8 * 8) * 5 * 4 * 4  # each input value goes into 5x4x4 outputs


def transposed_grouped():
    x = parameter(1, 6, 8, 8)
    y = ops.group_convolution_backprop_data(
        x, constant(3, 2, 7, 4, 4), [2, 2], None, [0, 0], [0, 0]
    )
    return x, y, 2 * (6 * 8 * 8) * 7 * 4 * 4


def product():
    x = parameter(3, 5, 7)
    return x, ops.matmul(x, constant(7, 11), False, False), 2 * 3 * 5 * 7 * 11


def product_of_transposed():
    x = parameter(3, 7, 5)
    return x, ops.matmul(x, constant(11, 7), True, True), 2 * 3 * 5 * 7 * 11


def activation():
    x = parameter(3, 5)
    return x, ops.relu(x), 0


LAYERS = [
    convolution, grouped, transposed, transposed_grouped, product, product_of_transposed,
    activation,
]  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS, ids=lambda f: f.__name__)
def test_flops_are_those_of_the_closed_form(layer) -> None:
    x, y, expected = layer()
    assert count_flops(openvino.Model([y], [x], "layer")) == expected


def test_flops_add_up_and_grow_with_the_batch() -> None:
    x = ops.parameter(openvino.PartialShape([-1, 3, 16, 16]), np.float32)
    first = ops.relu(
        ops.convolution(x, constant(8, 3, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1])
    )  # fmt: skip
    second = ops.convolution(first, constant(4, 8, 1, 1), [1, 1], [0, 0], [0, 0], [1, 1])
    model = openvino.Model([second], [x], "two")
    set_batch(model, 5)
    assert list(model.inputs[0].get_shape()) == [5, 3, 16, 16]
    assert count_flops(model) == 5 * 2 * 256 * (8 * 27 + 4 * 8)


def test_bytes_are_weights_once_and_activations_written_and_read() -> None:
    x = parameter(4, 256)
    y = ops.matmul(x, constant(256, 512), False, False)
    model = openvino.Model([y], [x], "product")
    found = compile_fp32(model)
    assert found.weights == 4 * 256 * 512
    assert found.activations == 4 * (4 * 256 + 4 * 512)
    assert found.total == found.weights + found.activations


def test_an_activation_function_in_its_layer_moves_nothing() -> None:
    counts = []
    for with_relu in (False, True):
        x = parameter(1, 16, 32, 32)
        y = ops.convolution(x, constant(16, 16, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1])
        counts.append(compile_fp32(openvino.Model([ops.relu(y) if with_relu else y], [x], "c")))
    assert counts[0] == counts[1]
    # at least what comes in and goes out; layouts may be changed on the way
    assert counts[0].activations >= 2 * 4 * 16 * 32 * 32
    assert counts[0].weights == 4 * 16 * 16 * 9


def compile_fp32(model: openvino.Model) -> Traffic:
    properties = {"INFERENCE_PRECISION_HINT": "f32"}
    return count_traffic(openvino.Core().compile_model(model, "CPU", properties))
