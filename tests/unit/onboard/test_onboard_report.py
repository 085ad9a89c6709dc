import base64
import re
from dataclasses import asdict
from html.parser import HTMLParser
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from fakes import MESHES, K, pose

from heatnet_ros.datasets.bop_writer import SceneWriter, WrittenObject, write_models
from heatnet_ros.errors import DataError
from heatnet_ros.evaluate import TargetRecord
from heatnet_ros.files import write_json
from heatnet_ros.geometry.camera import NO_DISTORTION
from heatnet_ros.geometry.symmetry import NO_SYMMETRY
from heatnet_ros.mesh import write_ply
from heatnet_ros.objects import describe_object, save_objects
from heatnet_ros.onboard.budget import make_fixed_plan
from heatnet_ros.onboard.charts import Line, draw_histogram, draw_lines
from heatnet_ros.onboard.check import CheckedObject
from heatnet_ros.onboard.options import Places
from heatnet_ros.onboard.pictures import choose_worst, describe_record, worst_pictures
from heatnet_ros.onboard.report import read_log, write_report
from heatnet_ros.overlay import silhouette

NAME = "brick <1>"
SIZE_HW = (480, 640)
PLAN = make_fixed_plan(120, 1, 640, 2)


def record(image="000000_000000", found=True, add=0.04, visible=0.9):
    if not found:
        return asdict(TargetRecord(image, "brick", visible, False, "not_detected"))
    return asdict(
        TargetRecord(
            image, "brick", visible, True, "", 0.9, add, 2.0, 3.0, 0.05, 0.2, 4.0, 12.0
        )
    )  # fmt: skip


@pytest.fixture
def places(tmp_path):
    """A finished onboarding with one test image."""
    places = Places(tmp_path, "parts")
    mesh = MESHES["brick"]
    places.meshes.mkdir(parents=True)
    write_ply(places.mesh("brick"), mesh)
    entry = describe_object("brick", places.mesh("brick"), "m", [], 8, 0)
    entry["mesh"] = "parts/brick.ply"
    save_objects(places.library, "parts", [entry])
    T = pose(0.05, -0.02, 0.5)
    mask = silhouette(mesh, T, K, NO_DISTORTION, SIZE_HW) > 0
    ys, xs = np.nonzero(mask)
    box = (int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1)
    rgb = np.full((*SIZE_HW, 3), 90, np.uint8)
    rgb[mask] = (200, 40, 40)
    for split in ("train", "test"):
        writer = SceneWriter(places.data / split / "000000")
        seen = int(mask.sum())
        written = WrittenObject(1, T, mask, box, (seen, seen, seen))
        writer.add(rgb, np.full(SIZE_HW, 0.5, np.float32), K, [written])
        writer.close()
    write_models(
        places.data / "models", {"brick": mesh}, {"brick": 1}, {"brick": 0.14},
        {"brick": NO_SYMMETRY},
    )  # fmt: skip
    overlay = places.overlays / "overlays" / "000000_000000.png"
    overlay.parent.mkdir(parents=True)
    cv2.imwrite(str(overlay), rgb[..., ::-1])
    for network in ("yolo", "heatnet"):
        log = places.training(network) / "log.jsonl"
        log.parent.mkdir()
        log.write_text(
            '{"seen": 16, "loss": 3.5, "seconds": 1}\n{"seen": 32, "loss": 2.5, "seconds": 2}\n'
            '{"seen": 32, "held_out": {"mean_recall": 0.5, "frames": 100}}\n{"seen": 4'
        )
    put_records(places, [record(), record(found=False)])
    return places


def put_records(places, records):
    shares = dict.fromkeys(
        ("add_002d", "add_005d", "add_01d", "proj_5px", "mspd", "mssd", "vsd", "map"), 0.125
    )
    score = {**shares, "targets": len(records), "found": 1, "median_error_mm": 4.25,
             "median_error_deg": None, "symmetric": True, "rejected": {"low_score": 3}}  # fmt: skip
    document = {
        "images": 1, "objects": {"brick": score}, "mean": {**shares, "targets": len(records)},
        "notes": ["a note & more"], "engines": {"detector": "openvino CPU"},
        "median_times_s": {"total": 0.034}, "records": records,
    }  # fmt: skip
    write_json(places.evaluation, document)


def write(places) -> str:
    about = CheckedObject(NAME, "x.ply", 0.14, (0.1, 0.1, 0.1), "varied", "12 faces", (), (), ())
    document = {
        "options": {"keypoints": 8, "poses": "upright", "rgb": False, "budget_s": 3600.0},
        "machine": {"cores": "2", "gpu": ""},
        "remarks": ["the screw is small"],
        "finished": {"keypoints": {"command": ["python", "-m", "x"], "seconds": 90.0}},
        "seconds": 600.0,
    }
    write_report(places, document, [about], PLAN, ["ros2 launch <here>"])
    return places.report.read_text()


class _Balance(HTMLParser):
    """Open tags, texts, and what a page would load from elsewhere."""

    VOID = ("meta", "img", "br")

    def __init__(self):
        super().__init__()
        self.open, self.texts, self.loaded = [], [], []

    def handle_starttag(self, tag, attrs):
        self.loaded += [v for k, v in attrs if k in ("src", "href") and not v.startswith("data:")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_report_is_one_sound_page_that_loads_nothing(places):
    page = _Balance()
    page.feed(write(places))
    assert page.open == [] and page.loaded == []
    text = " ".join(page.texts)
    for wanted in (
        "12.5 % of 2 targets in 1 held-out images", NAME, "a note & more", "ros2 launch <here>",
        "low_score 3", "the screw is small", "4.2", "1.5", "10.0 minutes in all", "12 faces",
        "brick*", "total 34 ms", "All numbers here are from rendered images",
    ):  # fmt: skip
        assert wanted in text
    assert "http" not in text


def test_pictures_are_in_the_page_and_show_what_they_should(places):
    text = write(places)
    pictures = [
        cv2.imdecode(np.frombuffer(base64.b64decode(code), np.uint8), cv2.IMREAD_COLOR)
        for code in re.findall(r"data:image/jpeg;base64,([^\"]+)", text)
    ]
    # two targets, one overlay, one training image
    assert len(pictures) == 4
    case = pictures[0]
    assert case.shape == (300, 300, 3)
    # the object (red in RGB) in the middle, within a white outline
    assert case[150, 150] == pytest.approx([40, 40, 200], abs=25)
    assert (case.min(axis=2) > 150).sum() > 100
    assert case[5, 5] == pytest.approx([90, 90, 90], abs=12)


def test_a_report_without_results_or_with_a_deleted_image_is_an_error(places):
    places.evaluation.write_text("{")
    with pytest.raises(DataError, match=r"evaluation\.json"):
        write(places)
    put_records(places, [record()])
    (places.overlays / "overlays" / "000000_000000.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="cannot be read"):
        write(places)
    assert not places.report.exists()


def test_worst_cases_are_misses_and_large_errors():
    records = [record(add=a) for a in (0.01, 0.5, 0.02, 0.3)]
    records += [record(found=False, visible=v) for v in (0.2, 0.9, 0.5)]
    worst = choose_worst(records, 4)
    assert [r["visible_fraction"] for r in worst[:2]] == [0.9, 0.5]
    assert [r["add_diameters"] for r in worst[2:]] == [0.5, 0.3]
    # where nothing was missed, the least accurate
    assert [r["add_diameters"] for r in choose_worst(records[:4], 3)] == [0.5, 0.3, 0.02]
    assert len(choose_worst(records[4:], 8)) == 3
    assert "not found (not_detected)" in describe_record(records[4])
    assert "ADD(-S) 50.0 % of the diameter, 4.0 mm, 12.0 deg" in describe_record(records[1])


def test_worst_pictures_need_the_test_images(places):
    (places.data / "test").rename(places.data / "gone")
    with pytest.raises(DataError):
        worst_pictures(places, [record()])


def test_lines_of_a_log_that_a_kill_cut_are_left_out(places):
    entries = read_log(places.training("yolo") / "log.jsonl")
    assert [entry["seen"] for entry in entries] == [16, 32, 32]
    assert read_log(places.run / "none.jsonl") == []


def bars(svg: str) -> list[int]:
    root = ElementTree.fromstring(svg)
    return [int(node[0].text) for node in root.iter() if node.tag == "rect"]


def test_histograms_count_every_value_once():
    values = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    svg = draw_histogram(values, [0, 1, 2], [("more", 1), ("missed", 4)], "errors & more", "mm")
    # the last interval has its upper edge
    assert bars(svg) == [2, 3, 1, 4]
    assert bars(draw_histogram([], [0, 1, 2], [], "none", "mm")) == [0, 0]


def test_curves_leave_out_what_is_no_number():
    svg = draw_lines([Line("loss", [(0, 1.0), (1, float("nan")), (2, 3.0)])], "loss", "samples")
    (line,) = [n for n in ElementTree.fromstring(svg).iter() if n.tag == "polyline"]
    points = [tuple(map(float, p.split(","))) for p in line.attrib["points"].split()]
    assert len(points) == 2
    # to the right and, as y grows downwards, upwards
    assert points[1][0] > points[0][0] and points[1][1] < points[0][1]
    assert "nothing was logged" in draw_lines([Line("x", [])], "t", "u")
    ElementTree.fromstring(draw_lines([Line("flat", [(5, 2.0)])], "t", "u"))
