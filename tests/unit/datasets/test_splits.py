import numpy as np
import pytest

from heatnet_ros.datasets.splits import draw_paper_split
from heatnet_ros.errors import DataError


@pytest.mark.parametrize("count", [10, 11, 19, 1152, 1254])
def test_parts_are_disjoint_and_complete(count: int):
    split = draw_paper_split(count, 1)
    assert sorted(split.train + split.test) == list(range(count))
    assert sorted(split.fit + split.validation) == list(split.train)
    assert len(split.test) == round(0.1 * count)
    assert len(split.validation) == round(0.2 * len(split.train))
    for part in (split.train, split.test, split.validation, split.fit):
        assert list(part) == sorted(part)


def test_the_same_for_ever():
    """Numbers written down once: a change of them would make published results incomparable."""
    assert draw_paper_split(20, 1).test == (12, 16)
    assert draw_paper_split(20, 1).validation == (5, 13, 18, 19)
    assert draw_paper_split(1236, 1) == draw_paper_split(1236, 1)


def test_objects_and_seeds_differ():
    ape = draw_paper_split(1236, 1)
    assert ape.test != draw_paper_split(1236, 2).test
    assert ape.test != draw_paper_split(1236, 1, seed=43).test


def test_images_are_drawn_from_the_whole_sequence():
    """LINEMOD's images follow each other around the object: a block would be another test."""
    test = np.array(draw_paper_split(1236, 9).test)
    assert 4 < np.median(np.diff(test)) < 13
    assert test[0] < 60
    assert test[-1] > 1175


def test_sizes_are_the_papers():
    """Test and validation images of an object, from the denominators of Tables 3 and 4."""
    ape = draw_paper_split(1236, 1)
    assert len(ape.test) == 124
    total = [draw_paper_split(1215, obj_id) for obj_id in range(13)]
    assert sum(len(s.test) for s in total) == pytest.approx(1579, rel=0.01)
    assert sum(len(s.validation) for s in total) == pytest.approx(2843, rel=0.01)


def test_too_few_images():
    with pytest.raises(DataError, match="needs 10 images or more of object 4, got 9"):
        draw_paper_split(9, 4)
