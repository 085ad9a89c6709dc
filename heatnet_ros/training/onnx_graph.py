"""From a trained network to the network that is shipped, and from that to an ONNX graph."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from heatnet_ros.errors import ModelError
from heatnet_ros.training.yolo import to_float

OPSET = 17
# smaller tensors (biases, normalisation) stay float32: they cost nothing
MIN_ROUNDED_ELEMENTS = 256
HALF_MAX = 65504.0


def fuse_batchnorm(module: nn.Module, inputs: Mapping[str, Tensor]) -> nn.Module:
    """A copy whose convolutions contain the batch normalisation that follows them.

    Which one follows is read off a run with ``inputs``. Exporters fuse as well, but then the
    stored numbers would not be the ones that were rounded and measured here.
    """
    module = copy.deepcopy(module).eval()
    produced: dict[int, tuple[nn.Module, Tensor]] = {}
    follows: dict[nn.Module, nn.Module] = {}

    def after_convolution(conv: nn.Module, _: Any, output: Tensor) -> None:
        produced[id(output)] = (conv, output)  # the tensor is kept, so that its id stays its own

    def before_norm(norm: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        conv, _ = produced.get(id(arguments[0]), (None, None))
        if conv is not None:
            follows[norm] = conv

    hooks = []
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            hooks.append(part.register_forward_hook(after_convolution))
        elif type(part) is nn.BatchNorm2d:
            hooks.append(part.register_forward_pre_hook(before_norm))
    with torch.no_grad():
        module(**inputs)
    for hook in hooks:
        hook.remove()
    replacements: dict[nn.Module, nn.Module] = {}
    for norm, conv in follows.items():
        if list(follows.values()).count(conv) == 1:
            transposed = isinstance(conv, nn.ConvTranspose2d)
            replacements[conv] = fuse_conv_bn_eval(conv, norm, transposed)
            replacements[norm] = nn.Identity()
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if child in replacements:
                setattr(parent, name, replacements[child])
    return module


def round_weights(module: nn.Module, everything: bool) -> None:
    """Round weights to float16's values, in place; they are stored so without loss.

    everything: biases too, as a graph that computes in float16 needs. Raises ModelError where a
    weight is beyond float16's range.
    """
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if everything or (weight.ndim >= 2 and weight.numel() >= MIN_ROUNDED_ELEMENTS):
                rounded = weight.half().float()
                if not torch.isfinite(rounded).all():
                    raise ModelError(
                        f"Weight '{name}' reaches {weight.abs().max().item():g}, float16 ends at "
                        f"{HALF_MAX:g}. Export with --weights fp32 (and --precision fp32)."
                    )
                weight.copy_(rounded)


class HalfCompute(nn.Module):
    """A network that computes in float16 between float32 inputs and float32 outputs."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = copy.deepcopy(net).half()
        self.config = getattr(net, "config", None)

    def forward(self, *inputs: Any) -> Any:
        """Same arguments and results as the network's."""
        halves = [
            _bound(x).half() if isinstance(x, Tensor) and x.is_floating_point() else x
            for x in inputs
        ]
        return to_float(self.net(*halves))


class HalfDetector(HalfCompute):
    """A detector that computes in float16; gives its rows alone."""

    def forward(self, *inputs: Any) -> Tensor:
        """Same arguments as the network's -> 1xMx6 float32."""
        found = super().forward(*inputs)
        return _bound(found[0] if isinstance(found, tuple) else found)


def _bound(x: Tensor) -> Tensor:
    """The same values, within float16's range.

    OpenVINO drops a Cast that stands first or last in a graph, and the input's or output's name
    with it; a Clip stays.
    """
    return x.clamp(-HALF_MAX, HALF_MAX)


def build_onnx(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: tuple[str, ...], dynamic: bool
) -> onnx.ModelProto:
    """Trace the module. ``dynamic`` leaves the first dimension of every tensor open."""
    axes = {name: {0: "batch"} for name in [*inputs, *outputs]} if dynamic else None
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # the exporter's age, and Python numbers of ultralytics that are constants here
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        # the TorchScript exporter: one file, names as given, no further package needed
        torch.onnx.export(
            module, (), buffer, kwargs=dict(inputs), input_names=list(inputs),
            output_names=list(outputs), opset_version=OPSET, dynamic_axes=axes, dynamo=False,
        )  # fmt: skip
    return onnx.load_model_from_string(buffer.getvalue())


def store_weights_as_fp16(model: onnx.ModelProto) -> None:
    """Keep float32 weights that float16 holds exactly as float16 behind a Cast.

    Backends fold the Cast when loading. Others stay as they are, so nothing is lost here: rounding
    is ``round_weights``' business, before anything is measured.
    """
    casts = []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.size < MIN_ROUNDED_ELEMENTS:
            continue
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), array):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, name + "_fp16"))
        casts.append(
            onnx.helper.make_node("Cast", [name + "_fp16"], [name], to=onnx.TensorProto.FLOAT)
        )
    for node in reversed(casts):
        model.graph.node.insert(0, node)
