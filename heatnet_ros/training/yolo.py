"""YOLOv10 from ultralytics (AGPL-3.0, an optional training extra): network, loss, deployment."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from heatnet_ros.errors import ConfigError

MAX_DETECTIONS = 50


def build_yolo(classes: int, size: str, updates: int) -> nn.Module:
    """YOLOv10 with random weights and its training loss. size: n, s, m, b, l or x.

    updates: how often ``criterion.update`` will be called, for the loss's own schedule.
    """
    try:
        from ultralytics.cfg import get_cfg
        from ultralytics.nn.tasks import DetectionModel
    except ImportError as error:
        raise ConfigError(
            "Training the detector needs ultralytics: pip install 'heatnet_ros[train]'."
        ) from error
    model = DetectionModel(f"yolov10{size}.yaml", ch=3, nc=classes, verbose=False)
    model.args = get_cfg(overrides={"epochs": max(updates, 2)})
    model.criterion = model.init_criterion()
    model.model[-1].end2end = True  # inference through the one-to-one head, without NMS
    model.model[-1].max_det = MAX_DETECTIONS
    return model.to(memory_format=torch.channels_last)


def to_float(value: Any) -> Any:
    """Every tensor in a nested prediction as float32: losses are computed in full precision."""
    if isinstance(value, dict):
        return {key: to_float(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(to_float(item) for item in value)
    return value.float() if isinstance(value, Tensor) else value


class DeployedYolo(nn.Module):
    """What is exported: uint8 image in, NMS-free detections out.

    image 1xHxWx3 uint8 -> 1xMx6: x0, y0, x1, y1 in input pixels (continuous), score, class.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """Detections of one image."""
        output = self.model(image.permute(0, 3, 1, 2).float() / 255.0)
        return output[0] if isinstance(output, tuple) else output
