"""Layers of HeatNet whose weights or answers depend on the object in the crop."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ObjectScale(nn.Module):
    """Scale and shift per object and channel (FiLM); starts as the identity."""

    def __init__(self, objects: int, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(objects, channels))
        self.shift = nn.Parameter(torch.zeros(objects, channels))

    def forward(self, x: Tensor, object_index: Tensor) -> Tensor:
        """NxCxHxW, N -> NxCxHxW."""
        scale, shift = self.scale[object_index], self.shift[object_index]
        return x * (1.0 + scale[:, :, None, None]) + shift[:, :, None, None]


class ObjectHead(nn.Module):
    """A 1x1 convolution with weights of its own for every object: NxCxhxw -> NxOxhxw."""

    def __init__(self, objects: int, inputs: int, outputs: int, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(objects, outputs, inputs) * 0.02)
        self.bias = nn.Parameter(torch.full((objects, outputs, 1), bias))

    def forward(self, x: Tensor, object_index: Tensor) -> Tensor:
        """Features and the object of each crop -> the object's outputs."""
        return apply_head(x, self.weight[object_index], self.bias[object_index])


def apply_head(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """NxCxhxw, weight NxOxC, bias NxOx1 -> NxOxhxw."""
    n, channels, h, w = x.shape
    return (torch.matmul(weight, x.reshape(n, channels, h * w)) + bias).reshape(n, -1, h, w)


class ConfidenceHead(nn.Module):
    """How far each keypoint can be trusted, from its heatmap and the features under it.

    It reads a finished network: no gradient flows back into the trunk.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Linear(channels + 3, 32)
        self.second = nn.Linear(32, 1)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """NxCxhxw, NxKxhxw -> logits NxK."""
        features, logits = features.detach().flatten(2), logits.detach().flatten(2).float()
        share = torch.softmax(logits, dim=2)
        under = torch.matmul(share.to(features.dtype), features.transpose(1, 2))
        top = share.amax(dim=2)
        entropy = -(share * torch.log(share.clamp_min(1e-9))).sum(dim=2)
        height = torch.tanh(logits.amax(dim=2) / 8.0)
        seen = torch.stack([torch.log(top.clamp_min(1e-9)), entropy, height], dim=2)
        return self.second(
            F.relu(self.first(torch.cat([under, seen.to(under.dtype)], dim=2)))
        ).squeeze(2)
