import json
import time
from pathlib import Path

import pytest
from test_linemod import write_folder

from heatnet_ros.datasets.open import PAPER_PARTS, open_dataset
from heatnet_ros.errors import DataError

SHARED = Path(__file__).parents[4] / "shared" / "data"
CAMERA = {"cam_K": [600, 0, 10, 0, 600, 8, 0, 0, 1], "depth_scale": 1.0}
POSE = {"obj_id": 1, "cam_R_m2c": [1, 0, 0, 0, 1, 0, 0, 0, 1], "cam_t_m2c": [0, 0, 900.0]}


def write_bop(folder: Path, image_ids: range | list[int]) -> None:
    folder.mkdir(parents=True)
    (folder / "scene_camera.json").write_text(json.dumps({str(i): CAMERA for i in image_ids}))
    (folder / "scene_gt.json").write_text(json.dumps({str(i): [POSE] for i in image_ids}))


def names(scenes: list) -> list[tuple[int, int]]:
    return [(image.scene_id, image.image_id) for scene in scenes for image in scene.images]


@pytest.fixture
def linemod(tmp_path: Path) -> Path:
    for obj_id, count in ((1, 20), (15, 30)):
        write_folder(tmp_path / "Linemod_preprocessed" / "data" / f"{obj_id:02d}", count)
    return tmp_path / "Linemod_preprocessed"


@pytest.mark.parametrize("parts", [("train", "test"), ("train-90", "test-10")])
def test_the_splits_of_linemod_are_disjoint_and_complete(linemod: Path, parts: tuple[str, str]):
    first, second = (names(open_dataset(linemod, part)) for part in parts)
    assert not set(first) & set(second)
    assert sorted(first + second) == [(1, i) for i in range(20)] + [(15, i) for i in range(30)]


def test_sizes_of_the_splits(linemod: Path):
    sizes = {split: len(names(open_dataset(linemod, split))) for split in PAPER_PARTS}
    assert sizes == {"train-90": 45, "test-10": 5, "val-18": 9, "train-72": 36}
    assert names(open_dataset(linemod, "train"))[:3] == [(1, 0), (1, 5), (1, 10)]
    inside = {*names(open_dataset(linemod, "val-18")), *names(open_dataset(linemod, "train-72"))}
    assert inside == set(names(open_dataset(linemod, "train-90")))


def test_one_object_alone_is_split_as_among_all(linemod: Path, tmp_path: Path):
    write_folder(tmp_path / "only" / "data" / "15", 30)
    alone = names(open_dataset(tmp_path / "only", "test-10"))
    assert alone == [pair for pair in names(open_dataset(linemod, "test-10")) if pair[0] == 15]


def test_bops_edition_of_linemod_splits_alike_without_03_and_07(linemod: Path, tmp_path: Path):
    for scene, count in ((1, 20), (3, 40), (7, 40), (15, 30)):
        write_bop(tmp_path / "lm" / "test" / f"{scene:06d}", range(count))
    for split in PAPER_PARTS:
        assert names(open_dataset(tmp_path / "lm", split)) == names(open_dataset(linemod, split))
    assert len(open_dataset(tmp_path / "lm", "test")) == 4


def test_the_papers_split_needs_every_image(tmp_path: Path):
    write_bop(tmp_path / "lm" / "test" / "000001", [*range(0, 100, 5)])
    with pytest.raises(DataError, match=r"has 20 images, the last is number 95.*test_all"):
        open_dataset(tmp_path / "lm", "train-90")


def test_what_is_there_is_listed(linemod: Path, tmp_path: Path):
    write_bop(tmp_path / "parts" / "train_pbr" / "000000", [0])
    with pytest.raises(DataError, match=r"no split 'test'.*BOP data set with train_pbr"):
        open_dataset(tmp_path / "parts", "test")
    with pytest.raises(DataError, match=r"paper's split of LINEMOD.*this one has train_pbr"):
        open_dataset(tmp_path / "parts", "test-10")
    with pytest.raises(DataError, match=r"part of a BOP data set. Give the folder above"):
        open_dataset(tmp_path / "parts" / "train_pbr", "test")
    with pytest.raises(DataError, match=r"Linemod_preprocessed, whose splits are train, test .*te"):
        open_dataset(linemod, "validation")
    (tmp_path / "photos" / "b").mkdir(parents=True)
    with pytest.raises(DataError, match=r"Expected BOP \(test/000001.*\), found b\."):
        open_dataset(tmp_path / "photos", "test")
    with pytest.raises(DataError, match=r"found nothing"):
        open_dataset(tmp_path / "photos" / "b", "test")
    with pytest.raises(DataError, match=r"gone does not exist"):
        open_dataset(tmp_path / "gone", "test")


def test_a_folder_that_lost_its_annotations_is_reported(linemod: Path):
    (linemod / "data" / "15" / "gt.yml").unlink()
    with pytest.raises(DataError, match=r"15/gt\.yml cannot be read"):
        open_dataset(linemod, "train")
    (linemod / "data" / "01" / "test.txt").unlink()
    with pytest.raises(DataError, match=r"01/test\.txt cannot be read"):
        open_dataset(linemod, "test")


def test_a_full_folder_opens_quickly(tmp_path: Path):
    """1,200 images as published; all 13 in a few seconds, which this would take with PyYAML's own
    loader alone. Processor time, because the machine may be busy.
    """
    folder = write_folder(tmp_path / "set" / "data" / "01", 1)
    cameras = (folder / "info.yml").read_text().removeprefix("0:\n")
    truths = (folder / "gt.yml").read_text().removeprefix("0:\n")
    (folder / "info.yml").write_text("".join(f"{i}:\n{cameras}" for i in range(1200)))
    (folder / "gt.yml").write_text("".join(f"{i}:\n{truths}" for i in range(1200)))
    for i in range(1200):
        (folder / "rgb" / f"{i:04d}.png").touch()
    start = time.process_time()
    (scene,) = open_dataset(tmp_path / "set", "train-90")
    assert len(scene.images) == 1080
    assert time.process_time() - start < 2.0


@pytest.mark.skipif(not (SHARED / "lmo").exists(), reason="../shared/data/lmo is absent")
def test_real_lmo():
    (scene,) = open_dataset(SHARED / "lmo", "test")
    assert len(scene.images) == 50
    assert scene.name_of(8) == "driller"
