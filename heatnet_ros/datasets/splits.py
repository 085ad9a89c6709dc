"""Which images train and which test: the two customs on LINEMOD.

*Standard* (most of the literature): the lists train.txt and test.txt that come with the data,
about 15 % of the images to train on; ``linemod.load_frame_list`` reads them.

*Paper* (HeatNet): "15,800 RGB images from 13 object classes ... split into 90% for training (14,220
images) and 10% for testing (1,580 images)" (section 3.2), drawn at random with seed 42, and a
validation part that the text does not define but Tables 2 and 3 report on. Their percentages give
it away, each being a multiple of 1/n for one n only: 205 (camera) to 232 (phone) validation images
an object, 2,843 in all, which is 20 % of the training part; and 115 (iron) to 125 (duck) test
images an object, 1,579 in all, which is 10 % of each object's images. Here both shares are taken
of each object by itself, so that a part of the data set is split like the whole.

The paper names no generator and publishes no lists: which image fell into which part cannot be
known. These parts have its proportions, not its images. They are drawn by NumPy's ``RandomState``
(Mersenne Twister), whose numbers are frozen for good (NEP 19), unlike those of ``default_rng``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heatnet_ros.errors import DataError

PAPER_SEED = 42
TEST_SHARE = 0.1
VALIDATION_SHARE = 0.2  # of what is left for training


@dataclass(frozen=True)
class PaperSplit:
    """Positions of the images of one object, each part ascending.

    train and test are disjoint and complete. validation is the part of ``train`` to choose
    settings on; ``fit`` is the rest of it.
    """

    train: tuple[int, ...]
    test: tuple[int, ...]
    validation: tuple[int, ...]

    @property
    def fit(self) -> tuple[int, ...]:
        """What a network learns from while settings are chosen on ``validation``."""
        held_out = set(self.validation)
        return tuple(position for position in self.train if position not in held_out)


def draw_paper_split(count: int, obj_id: int, seed: int = PAPER_SEED) -> PaperSplit:
    """Split the ``count`` images of an object as the paper did, 90/10 at random.

    Every object has its own stream of random numbers (``seed`` and ``obj_id``), so its parts do
    not depend on which other objects are there. Raises DataError for fewer than 10 images, of
    which no tenth can be taken.
    """
    if count < 10:
        raise DataError(
            f"The 90/10 split needs 10 images or more of object {obj_id}, got {count}. Use the "
            "whole folder, or download the rest of the data set."
        )
    order = [int(i) for i in np.random.RandomState([seed, obj_id]).permutation(count)]
    tests = round(TEST_SHARE * count)
    validations = round(VALIDATION_SHARE * (count - tests))
    return PaperSplit(
        train=tuple(sorted(order[tests:])),
        test=tuple(sorted(order[:tests])),
        validation=tuple(sorted(order[tests : tests + validations])),
    )
