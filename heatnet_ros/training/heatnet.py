"""HeatNet: ResNet-18 streams, residual RGB-D cross fusion, deconvolution decoder (paper 3.5, 3.7).

``full`` is the published network: 256 pixel crops, width 64, decoder of three deconvolutions, focal
loss. ``lite`` is the same code for CPUs: 128 pixel crops, half the width, lateral connections and a
softmax loss, which learn from far fewer crops when there are no ImageNet weights. The last
convolution is per object, so that one network serves a whole object set.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "mish": nn.Mish}


@dataclass(frozen=True)
class HeatNetConfig:
    """Shape of a network. width: channels of ResNet's first stage (64 in ResNet-18)."""

    objects: int
    keypoints: int
    rgbd: bool = True
    width: int = 64
    crop_px: int = 256
    decoder: int = 256
    lateral: bool = False
    activation: str = "relu"
    loss: str = "focal"
    sigma: float = 2.0

    stride = 4

    @property
    def heatmap_px(self) -> int:
        """Side of the heatmaps."""
        return self.crop_px // self.stride


PRESETS = {
    "full": {},
    "lite": {
        "width": 32, "crop_px": 128, "decoder": 96, "lateral": True,
        "loss": "softmax", "sigma": 1.2,
    },
}  # fmt: skip


class BasicBlock(nn.Module):
    """ResNet's two 3x3 convolutions with a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.act = act()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """NxCxHxW -> NxOxhxw."""
        y = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        return self.act(y + self.downsample(x))


class ResNet18(nn.Module):
    """ResNet-18 without its classifier; gives the four stages at strides 4, 8, 16, 32.

    Module names are torchvision's, so that its weights load.
    """

    def __init__(self, inputs: int, width: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act = act()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = [width, width, 2 * width, 4 * width, 8 * width]
        for i in range(4):
            first = BasicBlock(channels[i], channels[i + 1], 1 if i == 0 else 2, act)
            second = BasicBlock(channels[i + 1], channels[i + 1], 1, act)
            setattr(self, f"layer{i + 1}", nn.Sequential(first, second))

    def forward(self, x: Tensor) -> list[Tensor]:
        """NxCxHxW -> the four stages' features."""
        x = self.maxpool(self.act(self.bn1(self.conv1(x))))
        stages = []
        for i in range(4):
            x = getattr(self, f"layer{i + 1}")(x)
            stages.append(x)
        return stages


class CrossFusion(nn.Module):
    """Residual cross fusion (paper 3.7): each stream is refined by the other one's residual block.

    Two NxCxHxW features -> Nx2CxHxW.
    """

    def __init__(self, channels: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.rgb_first = BasicBlock(channels, channels, 1, act)
        self.depth_first = BasicBlock(channels, channels, 1, act)
        self.rgb_second = BasicBlock(channels, channels, 1, act)
        self.depth_second = BasicBlock(channels, channels, 1, act)

    def forward(self, rgb: Tensor, depth: Tensor) -> Tensor:
        """Fuse the last features of both streams."""
        to_depth, to_rgb = self.rgb_first(rgb), self.depth_first(depth)
        return torch.cat([self.rgb_second(rgb + to_rgb), self.depth_second(depth + to_depth)], 1)


class HeatNet(nn.Module):
    """Crops -> heatmap logits, one channel per keypoint of the crop's object."""

    def __init__(self, config: HeatNetConfig) -> None:
        super().__init__()
        self.config = config
        act, width, deep = ACTIVATIONS[config.activation], config.width, 8 * config.width
        streams = 2 if config.rgbd else 1
        self.rgb = ResNet18(3, width, act)
        if config.rgbd:
            self.depth = ResNet18(2, width, act)
            self.fusion = CrossFusion(deep, act)
        self.up = nn.ModuleList()
        self.lateral = nn.ModuleList()
        inputs = deep * streams
        for channels in (4 * width, 2 * width, width):
            self.up.append(
                nn.Sequential(
                    nn.ConvTranspose2d(inputs, config.decoder, 4, 2, 1, bias=False),
                    nn.BatchNorm2d(config.decoder),
                    act(),
                )
            )
            if config.lateral:
                self.lateral.append(nn.Conv2d(channels * streams, config.decoder, 1))
            inputs = config.decoder
        self.head = nn.Parameter(torch.randn(config.objects, config.keypoints, inputs) * 0.02)
        # focal loss starts from the rare positive's prior (CenterNet), softmax needs no bias
        start = -4.6 if config.loss == "focal" else 0.0
        self.head_bias = nn.Parameter(torch.full((config.objects, config.keypoints, 1), start))

    def forward(self, rgb: Tensor, depth: Tensor | None, object_index: Tensor) -> Tensor:
        """Rgb Nx3xSxS in -1..1, depth Nx2xSxS (encode_depth), object_index N -> NxKxhxw logits."""
        stages = self.rgb(rgb)
        x = stages[-1]
        if self.config.rgbd:
            depth_stages = self.depth(depth)
            x = self.fusion(x, depth_stages[-1])
            stages = [torch.cat(pair, 1) for pair in zip(stages, depth_stages, strict=True)]
        for i, up in enumerate(self.up):
            x = up(x)
            if self.config.lateral:
                x = x + self.lateral[i](stages[2 - i])
        n, channels, h, w = x.shape
        weights, bias = self.head[object_index], self.head_bias[object_index]
        logits = torch.matmul(weights, x.reshape(n, channels, h * w)) + bias
        return logits.reshape(n, -1, h, w)


class DeployedHeatNet(nn.Module):
    """What is exported: uint8 image in, heatmaps out (an ideal Gaussian peaks at 1)."""

    def __init__(self, net: HeatNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, rgb: Tensor, object_index: Tensor, depth: Tensor | None = None) -> Tensor:
        """Rgb NxSxSx3 uint8, object_index N, depth Nx2xSxS -> NxKxhxw."""
        return heatmaps_from_logits(
            self.net(normalize(rgb), depth, object_index).float(), self.net.config
        )


def normalize(rgb_u8: Tensor) -> Tensor:
    """NxSxSx3 uint8 -> Nx3xSxS in -1..1."""
    return rgb_u8.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def heatmaps_from_logits(logits: Tensor, config: HeatNetConfig) -> Tensor:
    """Logits -> heatmaps whose ideal Gaussian peaks at 1."""
    if config.loss == "focal":
        return torch.sigmoid(logits)
    flat = torch.softmax(logits.flatten(2), dim=2) * (2 * torch.pi * config.sigma**2)
    return flat.reshape(logits.shape)


def gaussian_targets(points_px: Tensor, config: HeatNetConfig) -> Tensor:
    """Target heatmaps (paper 3.5): NxKx2 crop pixels -> NxKxhxw, peak 1."""
    # + 0.5: pixel (0, 0) is a centre, as in geometry/camera.py's scale_points
    centers = (points_px + 0.5) / config.stride - 0.5
    grid = torch.arange(config.heatmap_px, dtype=points_px.dtype, device=points_px.device)
    gx = torch.exp(-((grid - centers[..., :1]) ** 2) / (2 * config.sigma**2))
    gy = torch.exp(-((grid - centers[..., 1:]) ** 2) / (2 * config.sigma**2))
    return gy[..., :, None] * gx[..., None, :]


def heatmap_loss(logits: Tensor, points_px: Tensor, config: HeatNetConfig) -> Tensor:
    """Scalar loss; keypoints outside the crop have no target and are left out of softmax's."""
    targets = gaussian_targets(points_px, config)
    if config.loss == "focal":
        return focal_loss(logits, targets)
    inside = ((points_px >= 0) & (points_px < config.crop_px)).all(dim=2)
    targets = targets.flatten(2)
    targets = targets / targets.sum(dim=2, keepdim=True).clamp_min(1e-6)
    cross = -(targets * F.log_softmax(logits.flatten(2), dim=2)).sum(dim=2)
    return (cross * inside).sum() / inside.sum().clamp_min(1)


def focal_loss(logits: Tensor, targets: Tensor, gamma: float = 2.0, beta: float = 4.0) -> Tensor:
    """Focal heatmap loss (paper 3.8, after CenterNet), averaged over all pixels.

    A keypoint's nearest pixel is the positive; a sub-pixel Gaussian's peak is rarely exactly 1.
    """
    peak = targets.amax(dim=(2, 3), keepdim=True)
    positive = (targets == peak) & (peak > 0.5)
    log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
    p = torch.sigmoid(logits)
    hit = (1 - p) ** gamma * log_p
    miss = (1 - targets) ** beta * p**gamma * log_not_p
    return -torch.where(positive, hit, miss).mean()
