"""Losses beside the heatmaps': dense heads, coarse heatmaps, positions, learned confidence.

Without pretrained weights a heatmap teaches little at first: a visible mask and object coordinates
(Wang et al., CVPR 2019) are learned from far fewer crops, and the trunk they form carries the
heatmaps. Each weight 0 switches its part off.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from heatnet_ros.config import option
from heatnet_ros.training.heatnet import HeatNetConfig, Predictions, heatmap_loss, inside_crop

LOCAL_RADIUS = 2  # heatmap pixels around the maximum
CONFIDENCE_SCALE_PX = 3.0  # error in crop pixels whose confidence is 1 / e
COORDINATE_BEND = 0.1  # where the Huber loss turns from quadratic to linear, radii


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses beside the heatmaps' own, which has 1."""

    mask: float = option(0.0, "Visible mask, dropped at export", low=0.0)
    coordinates: float = option(0.0, "Object coordinates, dropped at export", low=0.0)
    deep: float = option(0.0, "Heatmaps at half the resolution, dropped at export", low=0.0)
    position: float = option(0.0, "Distance of the heatmap's mean from the keypoint", low=0.0)
    confidence: float = option(0.0, "Learned confidence, an output of the model", low=0.0)

    @property
    def dense(self) -> bool:
        """Whether anything needs per-pixel targets."""
        return self.mask > 0 or self.coordinates > 0


@dataclass(frozen=True, eq=False)
class Targets:
    """What a batch of crops should give.

    points_px NxKx2: keypoints in crop pixels. mask Nxhxw: visible part of each heatmap pixel.
    coordinates Nx3xhxw: object coordinates in radii, NaN where unknown. The dense ones are None
    where nothing is to learn from them.
    """

    points_px: Tensor
    mask: Tensor | None = None
    coordinates: Tensor | None = None


def training_loss(
    found: Predictions, targets: Targets, weights: LossWeights, config: HeatNetConfig
) -> Tensor:
    """Weighted sum of all losses; a scalar."""
    points = targets.points_px
    logits = found.logits.float()
    loss = heatmap_loss(logits, points, config)
    if found.deep is not None and weights.deep:
        loss = loss + weights.deep * heatmap_loss(found.deep.float(), points, config)
    if found.dense is not None and targets.mask is not None:
        dense = found.dense.float()
        loss = loss + weights.mask * mask_loss(dense[:, 0], targets.mask)
        if targets.coordinates is not None and weights.coordinates:
            near = coordinate_loss(dense[:, 1:], targets.coordinates)
            loss = loss + weights.coordinates * near
    if weights.position:
        loss = loss + weights.position * position_loss(logits, points, config)
    if found.confidence is not None and weights.confidence:
        wanted = confidence_targets(logits.detach(), points, config)
        wrong = F.binary_cross_entropy_with_logits(found.confidence.float(), wanted)
        loss = loss + weights.confidence * wrong
    return loss


def mask_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Cross entropy of Nxhxw logits and visible parts 0..1."""
    return F.binary_cross_entropy_with_logits(logits, mask)


def coordinate_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Huber loss over the pixels whose coordinates are known; Nx3xhxw both, unknown is NaN."""
    known = torch.isfinite(wanted)
    error = F.smooth_l1_loss(
        found, torch.where(known, wanted, found.detach()), beta=COORDINATE_BEND, reduction="none"
    )
    return error.sum() / known.sum().clamp_min(1)


def position_loss(logits: Tensor, points_px: Tensor, config: HeatNetConfig) -> Tensor:
    """Mean distance of the heatmap's centre of mass from the keypoint, in heatmap sides.

    (Integral regression, Sun et al., ECCV 2018); keypoints outside the crop are left out.
    """
    n, k, h, w = logits.shape
    share = torch.softmax(logits.flatten(2), dim=2).reshape(n, k, h, w)
    x = (share.sum(dim=2) * torch.arange(w, device=logits.device)).sum(dim=2)
    y = (share.sum(dim=3) * torch.arange(h, device=logits.device)).sum(dim=2)
    wanted = (points_px + 0.5) / config.stride - 0.5
    inside = inside_crop(points_px, config.crop_px)
    distance = (torch.stack([x, y], dim=2) - wanted).abs().sum(dim=2) / config.heatmap_px
    return (distance * inside).sum() / inside.sum().clamp_min(1)


def local_positions(logits: Tensor, config: HeatNetConfig) -> Tensor:
    """Keypoints NxKx2 in crop pixels: the mean of the mass around each heatmap's maximum.

    A differentiable stand-in for DARK's decode, near enough to know how wrong a keypoint is.
    """
    h, w = logits.shape[2:]
    flat = logits.flatten(2)
    top = flat.argmax(dim=2)
    grid = torch.arange(h * w, device=logits.device)
    x, y = (grid % w).float(), torch.div(grid, w, rounding_mode="floor").float()
    top_x, top_y = x[top][..., None], y[top][..., None]
    far = ((x - top_x).abs() > LOCAL_RADIUS) | ((y - top_y).abs() > LOCAL_RADIUS)
    share = torch.softmax(flat.masked_fill(far, -1e4), dim=2)
    positions = torch.stack([(share * x).sum(dim=2), (share * y).sum(dim=2)], dim=2)
    return (positions + 0.5) * config.stride - 0.5


def confidence_targets(logits: Tensor, points_px: Tensor, config: HeatNetConfig) -> Tensor:
    """NxK: exp(-error / scale) of the decoded keypoints, 0 for those outside the crop."""
    error = (local_positions(logits, config) - points_px).norm(dim=2)
    return torch.exp(-error / CONFIDENCE_SCALE_PX) * inside_crop(points_px, config.crop_px)
