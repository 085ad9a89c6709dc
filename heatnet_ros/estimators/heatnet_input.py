"""What HeatNet sees of the depth image; the same function at run time and in training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.types import DepthF32


def encode_depth(depth_crop_m: DepthF32, diameter_m: float) -> NDArray[np.float32]:
    """Depth of a crop relative to its middle, in object diameters.

    depth_crop_m: SxS metres, invalid is 0 or not finite -> 2xSxS float32: relative depth clipped
    to -1..1 (0 where invalid), and 1 where valid. Relative to the median of the crop's central
    half, so that the network sees shape, and distance only through the crop's scale.
    """
    valid = np.isfinite(depth_crop_m) & (depth_crop_m > 0)
    size = depth_crop_m.shape[0]
    middle = slice(size // 4, size - size // 4)
    central = depth_crop_m[middle, middle][valid[middle, middle]]
    if not len(central):
        central = depth_crop_m[valid]
    reference = np.median(central) if len(central) else 0.0
    relative = np.zeros_like(depth_crop_m, dtype=np.float32)
    np.subtract(depth_crop_m, reference, out=relative, where=valid)
    relative = np.clip(relative / diameter_m, -1.0, 1.0)
    return np.stack([relative, valid.astype(np.float32)])
