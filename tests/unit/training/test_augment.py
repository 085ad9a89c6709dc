"""What an augmentation does unless a training file says otherwise."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is in the train extra (make test-train)")

from sphere_crops import make_crops

from heatnet_ros.training.augment import AugmentConfig
from heatnet_ros.training.crops import crop_sample

pytestmark = pytest.mark.train


@pytest.mark.parametrize(("options", "touched"), [({}, False), ({"depth_sensor": 1.0}, True)])
def test_depth_that_has_a_sensors_noise_gets_no_more_of_it_unasked(options, touched):
    """``synthesize`` and cameras write noisy depth; only clean renders want ``depth_sensor``."""
    still = {"rotate_deg": 0.0, "zoom": 0.0, "shift": 0.0, "cutout": 0.0}
    augment = AugmentConfig(**still, **options)
    crops = make_crops(1)
    a, b = (
        crop_sample(crops, 0, [0.1], 128, 1.3, augment, np.random.default_rng(seed), True)[1]
        for seed in (0, 1)
    )
    assert np.any(a != b) == touched
