"""HeatNet: ResNet-18 streams, residual RGB-D cross fusion, deconvolution decoder (paper 3.5, 3.7).

``full`` is the published network: 256 pixel crops, width 64, decoder of three deconvolutions, focal
loss. ``lite`` is the same code for CPUs: 128 pixel crops, half the width, lateral connections and a
softmax loss, which learn from far fewer crops when there are no ImageNet weights. The last
convolution is per object, so that one network serves a whole object set; ``condition`` makes the
layers before it per object as well. Heads that only teach the trunk (mask, object coordinates,
coarse heatmaps) are dropped at export; their losses are in ``auxiliary.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heatnet_ros.errors import ConfigError
from heatnet_ros.training.object_layers import (
    ConfidenceHead,
    ObjectHead,
    ObjectScale,
    apply_head,
)

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "mish": nn.Mish}
CONDITIONS = ("head", "decoder", "all")
STEMS = ("resnet", "light")
LATERALS = ("after", "inside")
DENSE_CHANNELS = 4  # mask and three object coordinates


@dataclass(frozen=True)
class HeatNetConfig:
    """Shape of a network; the defaults are the published one.

    width: channels of ResNet's first stage (64 in ResNet-18). decoder: channels of the decoder's
    stages, decoder_fine those of the last one (0: the same). lateral: add the trunk's stages to the
    decoder's, ``after`` its activation or ``inside`` (before it). stem: ``light`` replaces the 7x7
    convolution and the pooling by two strided convolutions. condition: which layers have weights of
    their own for every object: the ``head``, also scale and shift of the ``decoder``'s normalised
    features (FiLM, Perez et al., AAAI 2018), or ``all``: those of the deepest features too.
    confidence: learn how far each keypoint can be trusted. dense_head, deep_head: training only.
    """

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
    decoder_fine: int = 0
    lateral_place: str = "after"
    stem: str = "resnet"
    condition: str = "head"
    confidence: bool = False
    dense_head: bool = False
    deep_head: bool = False

    stride = 4

    def __post_init__(self) -> None:
        for key, known in (
            ("activation", tuple(ACTIVATIONS)), ("loss", ("focal", "softmax")), ("stem", STEMS),
            ("condition", CONDITIONS), ("lateral_place", LATERALS),
        ):  # fmt: skip
            if getattr(self, key) not in known:
                raise ConfigError(
                    f"Network option '{key}': expected one of {', '.join(known)}, got "
                    f"'{getattr(self, key)}'."
                )
        if self.crop_px % 32:
            raise ConfigError(f"Network option 'crop_px': {self.crop_px} is no multiple of 32.")

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

    Module names are torchvision's, so that its weights load. The ``light`` stem has half the
    channels at half the resolution, where most of a narrow network's time goes.
    """

    def __init__(self, inputs: int, width: int, act: type[nn.Module], stem: str = "resnet") -> None:
        super().__init__()
        self.act = act()
        if stem == "light":
            self.conv1 = nn.Conv2d(inputs, width // 2, 5, 2, 2, bias=False)
            self.bn1 = nn.BatchNorm2d(width // 2)
            self.maxpool: nn.Module = nn.Sequential(
                nn.Conv2d(width // 2, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), act()
            )
        else:
            self.conv1 = nn.Conv2d(inputs, width, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
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


@dataclass(frozen=True, eq=False)
class Predictions:
    """All that a network in training gives; None for heads that it lacks.

    logits NxKxhxw. dense Nx4xhxw: mask logit and object coordinates in radii. deep NxKxh/2xw/2:
    coarse heatmap logits. confidence NxK: logits.
    """

    logits: Tensor
    dense: Tensor | None = None
    deep: Tensor | None = None
    confidence: Tensor | None = None


class HeatNet(nn.Module):
    """Crops -> heatmap logits, one channel per keypoint of the crop's object."""

    def __init__(self, config: HeatNetConfig) -> None:
        super().__init__()
        self.config = config
        act, width, deep = ACTIVATIONS[config.activation], config.width, 8 * config.width
        streams, objects = 2 if config.rgbd else 1, config.objects
        fine = config.decoder_fine or config.decoder
        self.rgb = ResNet18(3, width, act, config.stem)
        if config.rgbd:
            self.depth = ResNet18(2, width, act, config.stem)
            self.fusion = CrossFusion(deep, act)
        self.up, self.lateral = nn.ModuleList(), nn.ModuleList()
        self.scales = nn.ModuleList()
        inputs = deep * streams
        if config.condition == "all":
            self.deep_scale = ObjectScale(objects, inputs)
        for channels, outputs in (
            (4 * width, config.decoder), (2 * width, config.decoder), (width, fine)
        ):  # fmt: skip
            up = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)
            self.up.append(nn.Sequential(up, nn.BatchNorm2d(outputs), act()))
            if config.lateral:
                self.lateral.append(nn.Conv2d(channels * streams, outputs, 1))
            if config.condition != "head":
                self.scales.append(ObjectScale(objects, outputs))
            inputs = outputs
        self.head = nn.Parameter(torch.randn(objects, config.keypoints, inputs) * 0.02)
        # focal loss starts from the rare positive's prior (CenterNet), softmax needs no bias
        start = -4.6 if config.loss == "focal" else 0.0
        self.head_bias = nn.Parameter(torch.full((objects, config.keypoints, 1), start))
        if config.dense_head:
            self.dense = ObjectHead(objects, inputs, DENSE_CHANNELS)
        if config.deep_head:
            self.coarse = ObjectHead(objects, config.decoder, config.keypoints, start)
        if config.confidence:
            self.confidence = ConfidenceHead(inputs)

    def forward(
        self, rgb: Tensor, depth: Tensor | None, object_index: Tensor
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Rgb Nx3xSxS in -1..1, depth Nx2xSxS (encode_depth), object_index N -> logits NxKxhxw.

        With ``confidence`` its logits NxK as well. Heads that only teach are not computed.
        """
        features = self._decode(rgb, depth, object_index)[-1]
        logits = apply_head(features, self.head[object_index], self.head_bias[object_index])
        if not self.config.confidence:
            return logits
        return logits, self.confidence(features, logits)

    def predict_all(self, rgb: Tensor, depth: Tensor | None, object_index: Tensor) -> Predictions:
        """The same inputs -> what every head gives."""
        coarse, features = self._decode(rgb, depth, object_index)
        logits = apply_head(features, self.head[object_index], self.head_bias[object_index])
        config = self.config
        return Predictions(
            logits,
            self.dense(features, object_index) if config.dense_head else None,
            self.coarse(coarse, object_index) if config.deep_head else None,
            self.confidence(features, logits) if config.confidence else None,
        )

    def _decode(
        self, rgb: Tensor, depth: Tensor | None, object_index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Features at strides 8 and 4."""
        stages = self.rgb(rgb)
        x = stages[-1]
        if self.config.rgbd:
            depth_stages = self.depth(depth)
            x = self.fusion(x, depth_stages[-1])
            stages = [torch.cat(pair, 1) for pair in zip(stages, depth_stages, strict=True)]
        if self.config.condition == "all":
            x = self.deep_scale(x, object_index)
        inside = self.config.lateral_place == "inside"
        found = []
        for i, (up, norm, act) in enumerate(self.up):
            x = norm(up(x))
            if self.config.lateral and inside:
                x = x + self.lateral[i](stages[2 - i])
            if self.config.condition != "head":
                x = self.scales[i](x, object_index)
            x = act(x)
            if self.config.lateral and not inside:
                x = x + self.lateral[i](stages[2 - i])
            found.append(x)
        return found[1], found[2]


class DeployedHeatNet(nn.Module):
    """What is exported: uint8 image in, heatmaps out (an ideal Gaussian peaks at 1)."""

    def __init__(self, net: HeatNet) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, rgb: Tensor, object_index: Tensor, depth: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Rgb NxSxSx3 uint8, object_index N, depth Nx2xSxS -> NxKxhxw.

        A network with learned confidence gives it too: NxK in 0..1.
        """
        config = self.net.config
        found = self.net(normalize(rgb), depth, object_index)
        if not config.confidence:
            return heatmaps_from_logits(found.float(), config)
        logits, confidence = found
        return heatmaps_from_logits(logits.float(), config), torch.sigmoid(confidence.float())


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
    """Target heatmaps (paper 3.5): NxKx2 crop pixels -> NxKxhxw, peak 1.

    Centres are not rounded to pixels: the targets of DARK (Zhang et al., CVPR 2020).
    """
    gy, gx = _profiles(points_px, config.heatmap_px, config.stride, config.sigma)
    return gy[..., :, None] * gx[..., None, :]


def _profiles(points_px: Tensor, size: int, stride: int, sigma: float) -> tuple[Tensor, Tensor]:
    """The Gaussians' factors along y and x, each NxKx``size``."""
    # + 0.5: pixel (0, 0) is a centre, as in geometry/camera.py's scale_points
    centers = (points_px + 0.5) / stride - 0.5
    grid = torch.arange(size, dtype=points_px.dtype, device=points_px.device)
    gx = torch.exp(-((grid - centers[..., :1]) ** 2) / (2 * sigma**2))
    gy = torch.exp(-((grid - centers[..., 1:]) ** 2) / (2 * sigma**2))
    return gy, gx


def inside_crop(points_px: Tensor, crop_px: int) -> Tensor:
    """NxKx2 -> NxK: whether the keypoint lies in the crop."""
    return ((points_px >= 0) & (points_px < crop_px)).all(dim=2)


def heatmap_loss(logits: Tensor, points_px: Tensor, config: HeatNetConfig) -> Tensor:
    """Scalar loss; keypoints outside the crop have no target and are left out of softmax's.

    logits NxKxhxw at any resolution: the Gaussian's width is ``sigma`` pixels of it.
    """
    size = logits.shape[-1]
    gy, gx = _profiles(points_px, size, config.crop_px // size, config.sigma)
    if config.loss == "focal":
        return focal_loss(logits, gy[..., :, None] * gx[..., None, :])
    inside = inside_crop(points_px, config.crop_px)
    gy = gy / gy.sum(dim=2, keepdim=True).clamp_min(1e-6)
    gx = gx / gx.sum(dim=2, keepdim=True).clamp_min(1e-6)
    # cross entropy = log sum exp - expected logit; no target image is made: half the time
    expected = torch.einsum("nky,nkyx,nkx->nk", gy, logits, gx)
    cross = torch.logsumexp(logits.flatten(2), dim=2) - expected
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
