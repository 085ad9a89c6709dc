"""Weights to start from: a checkpoint of this package, or torchvision's ResNet-18 (ImageNet)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from heatnet_ros.errors import ModelError
from heatnet_ros.training.checkpoint import load_checkpoint

# what the ImageNet weights were trained for: (value / 255 - mean) / deviation
IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406])
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225])
_RESNET_KEYS = ("conv1.weight", "bn1.weight", "layer4.1.bn2.weight")


def start_from(net: nn.Module, path: str, depth_too: bool = True) -> None:
    """Copy every weight that fits: the heads of other objects never do.

    path: a checkpoint of this package, or a file of torchvision's ``resnet18().state_dict()``,
    which fills ``net.rgb`` and, with ``depth_too``, ``net.depth``. Raises ModelError on any other
    file.
    """
    if not Path(path).exists():
        raise ModelError(
            f"init: {path} does not exist. Give a checkpoint, torchvision's ResNet-18 "
            "(https://download.pytorch.org/models/resnet18-f37072fd.pth), or init: '' to start "
            "from random weights."
        )
    state = load_checkpoint(Path(path))
    if "net" in state:
        own = net.state_dict()
        fitting = {k: v for k, v in state["net"].items() if k in own and own[k].shape == v.shape}
        if not fitting:
            raise ModelError(
                f"init: no weight of {path} fits this network: expected the names and shapes of "
                f"{len(own)} tensors, got {len(state['net'])} of another network. Correct 'init'."
            )
        net.load_state_dict(fitting, strict=False)
        print(f"started from {path}: {len(fitting)} of {len(own)} tensors fit", flush=True)
    elif all(key in state for key in _RESNET_KEYS):
        start_from_resnet(net, state, path, depth_too)
    else:
        raise ModelError(
            f"init: {path} is neither a checkpoint of this package (entry 'net') nor torchvision's "
            f"ResNet-18 (entries {', '.join(_RESNET_KEYS)}); it has "
            f"{', '.join(list(state)[:5])}. Correct 'init' in the training file."
        )


def start_from_resnet(net: nn.Module, state: dict[str, Any], path: str, depth_too: bool) -> None:
    """Fill the streams of a HeatNet of width 64 from torchvision's ResNet-18."""
    weights = {key: value for key, value in state.items() if not key.startswith("fc.")}
    streams = {"rgb": adapt_to_rgb}
    if depth_too and hasattr(net, "depth"):
        streams["depth"] = adapt_to_depth
    for name, adapt in streams.items():
        stream = getattr(net, name, None)
        wanted = stream.state_dict() if isinstance(stream, nn.Module) else {}
        adapted = adapt(weights)
        wrong = [k for k in wanted if k not in adapted or adapted[k].shape != wanted[k].shape]
        if not wanted or wrong:
            got = tuple(weights["conv1.weight"].shape)
            own = tuple(wanted["conv1.weight"].shape) if "conv1.weight" in wanted else "none"
            raise ModelError(
                f"init: torchvision's ResNet-18 does not fit the {name} stream: conv1 is {got} in "
                f"{path} and {own} in the network. Only HeatNet with width 64 (preset full) can "
                "start from it."
            )
        stream.load_state_dict({k: adapted[k] for k in wanted})
    print(f"started from ImageNet weights {path}: {' and '.join(streams)} stream", flush=True)


def adapt_to_rgb(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same function of pixels in -1..1 as of ImageNet's normalised ones, but at the border.

    With z in -1..1, (z + 1) / 2 = value / 255: the scale goes into the first convolution, its
    constant into the mean of the batch norm behind it. Zero padding means 0 in both.
    """
    kernel = weights["conv1.weight"]
    constant = (kernel.sum(dim=(2, 3)) * ((0.5 - IMAGENET_MEAN) / IMAGENET_STD)).sum(dim=1)
    return weights | {
        "conv1.weight": kernel / (2 * IMAGENET_STD).view(1, 3, 1, 1),
        "bn1.running_mean": weights["bn1.running_mean"] - constant,
    }


def adapt_to_depth(weights: dict[str, Tensor], channels: int = 2) -> dict[str, Tensor]:
    """The colour kernels' sum, shared among depth's channels: the same answer to a grey edge."""
    kernel = weights["conv1.weight"].sum(dim=1, keepdim=True) / channels
    return weights | {"conv1.weight": kernel.repeat(1, channels, 1, 1)}
