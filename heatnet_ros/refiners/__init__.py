"""Refiners: make poses agree better with the frame they were estimated from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from heatnet_ros.config import RefinerConfig
from heatnet_ros.errors import ConfigError
from heatnet_ros.objects import ObjectLibrary
from heatnet_ros.refiners.depth_icp import DepthIcp
from heatnet_ros.types import Frame, PoseEstimate


class Refiner(Protocol):
    """Improves poses; the same poses come back, in order, changed or not."""

    def refine(self, frame: Frame, poses: Sequence[PoseEstimate]) -> list[PoseEstimate]:
        """One pose for each given.

        A pose's keypoints must belong to that very pose, not to an equivalent of a symmetric
        object: refine first, choose among equivalent poses afterwards.
        """


_REFINERS: dict[str, Callable[[RefinerConfig, ObjectLibrary], Refiner]] = {
    "depth_icp": DepthIcp,
}


def build_refiner(config: RefinerConfig, library: ObjectLibrary) -> Refiner | None:
    """The refiner that ``config.name`` names, None for ``none``. Raises ConfigError."""
    if config.name == "none":
        return None
    if config.name not in _REFINERS:
        raise ConfigError(
            f"Refiner '{config.name}' is not known; expected none, {', '.join(_REFINERS)}. "
            "Correct the parameter refiner.name."
        )
    return _REFINERS[config.name](config, library)
