"""Held-out rendered data that an export is checked on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from heatnet_ros.estimators.agreement import SAMPLES_FILE, write_samples
from heatnet_ros.geometry.camera import fit_letterbox
from heatnet_ros.objects import ObjectLibrary
from heatnet_ros.training.crops import crop_sample
from heatnet_ros.training.frames import frame_sample
from heatnet_ros.training.heatnet import HeatNetConfig
from heatnet_ros.training.real_samples import CropSample, Sample, crop_feed, spread

HELD_OUT = 64


def held_out_crops(
    crops: Mapping[str, Any], library: ObjectLibrary, config: HeatNetConfig, margin: float
) -> list[CropSample]:
    """Crops that the training did not see, spread over all there are."""
    models = list(library.objects.values())
    diameters = [model.diameter_m for model in models]
    rng = np.random.default_rng(0)
    samples = []
    for i in spread(len(crops["object"]), HELD_OUT):
        index = int(crops["object"][i])
        rgb, depth, _, warp = crop_sample(
            dict(crops), i, diameters, config.crop_px, margin, None, rng, config.rgbd
        )
        feed = crop_feed(rgb, index, depth if config.rgbd else None)
        samples.append(CropSample(feed, "held out", warp, crops["K"][i], models[index]))
    return samples


def held_out_frames(data: Mapping[str, Any], input_hw: tuple[int, int]) -> list[Sample]:
    """Frames that the training did not see, letterboxed to the detector's input."""
    samples = []
    for i in spread(len(data["frames"]), HELD_OUT):
        frame = frame_sample(dict(data), i, None, 0.0)[0]
        image = fit_letterbox((frame.shape[0], frame.shape[1]), input_hw).apply(frame)
        samples.append(Sample({"image": image[None]}, "held out"))
    return samples


def keep_samples(folder: Path, samples: Sequence[Sample], count: int) -> Path:
    """Write ``count`` of the inputs, spread over all, into a model folder; returns the file.

    What ``agreement.build_check`` compares arithmetics on. Raises DataError when the file cannot
    be written.
    """
    path = folder / SAMPLES_FILE
    write_samples(path, [samples[i].feed for i in spread(len(samples), count)])
    return path
