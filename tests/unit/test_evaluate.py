import json

import numpy as np
import pytest
from fakes import LIBRARY, K, pose

from heatnet_ros.evaluate import Scorer, TruePose, build_report, format_table
from heatnet_ros.geometry.symmetry import rotation_about
from heatnet_ros.types import PipelineResult, PoseEstimate, Reason, Rejection

T = pose(0.0, 0.0, 0.7)


def result(*poses: PoseEstimate, rejected: tuple[Rejection, ...] = ()) -> PipelineResult:
    return PipelineResult(poses, rejected, (), {}, {})


def estimate(name: str, T_camera_object: np.ndarray, score: float = 0.9) -> PoseEstimate:
    return PoseEstimate(name, T_camera_object, score, 1.0, 0.5, "test")


def shifted(mm: float) -> np.ndarray:
    out = T.copy()
    out[0, 3] += mm * 1e-3
    return out


def test_misses_count_and_medians_are_over_what_was_found():
    scorer = Scorer(LIBRARY)
    truth = [TruePose("wedge", T)]
    assert LIBRARY["wedge"].diameter_m == pytest.approx(0.13, abs=0.01)  # threshold about 13 mm
    for mm in (2.0, 4.0, 40.0):
        scorer.add(result(estimate("wedge", shifted(mm))), truth, K)
    scorer.add(result(rejected=(Rejection("wedge", Reason.NO_DEPTH),)), truth, K)
    score = scorer.summarize()["wedge"]
    assert (score.targets, score.found) == (4, 3)
    assert score.recall_add_01d == 0.5
    assert score.recall_projection_5px == 0.5  # 2 and 4 mm at 0.7 m are 1.8 and 3.5 px
    assert score.median_error_mm == pytest.approx(4.0)
    assert score.median_error_deg == pytest.approx(0.0, abs=1e-6)
    assert score.rejected == {"no_depth": 1}
    assert score.measured_on == "surface"


def test_symmetric_objects_use_adds():
    turned = T @ rotation_about(np.array([0.0, 0, 1]), np.zeros(3), np.pi)
    scorer = Scorer(LIBRARY)
    scorer.add(
        result(estimate("brick", turned), estimate("wedge", turned)),
        [TruePose("brick", T), TruePose("wedge", T)],
        K,
    )
    scores = scorer.summarize()
    assert scores["brick"].recall_add_01d == 1.0
    assert scores["brick"].median_error_deg == pytest.approx(0.0, abs=1e-4)
    assert scores["wedge"].recall_add_01d == 0.0
    assert scores["wedge"].median_error_deg == pytest.approx(180.0, abs=1e-4)


def test_only_visible_instances_of_known_objects_are_targets():
    scorer = Scorer(LIBRARY)
    truths = [
        TruePose("wedge", T, 0.09),
        TruePose("wedge", shifted(200), 0.1),
        TruePose("duck", T, 1.0),
    ]
    scorer.add(result(), truths, K)
    scores = scorer.summarize()
    assert list(scores) == ["wedge"]
    assert scores["wedge"].targets == 1
    assert scores["wedge"].median_error_mm is None


def test_several_instances_are_matched_one_to_one():
    scorer = Scorer(LIBRARY)
    truths = [TruePose("wedge", T), TruePose("wedge", shifted(100))]
    poses = (estimate("wedge", shifted(101), 0.9), estimate("wedge", shifted(1), 0.8))
    scorer.add(result(*poses), truths, K)
    assert scorer.summarize()["wedge"].recall_add_01d == 1.0
    assert scorer.summarize()["wedge"].median_error_mm == pytest.approx(1.0)


def test_report_is_json_and_the_table_shows_every_object():
    scorer = Scorer(LIBRARY)
    truths = [TruePose("wedge", T), TruePose("brick", T)]
    rejected = (Rejection("brick", Reason.REPROJECTION_HIGH),)
    scorer.add(result(estimate("wedge", shifted(2)), rejected=rejected), truths, K)
    scores = scorer.summarize()
    report = json.loads(json.dumps(build_report(scores), allow_nan=False))
    assert report["recall_add_01d"] == 0.5
    assert report["objects"]["brick"]["median_error_mm"] is None
    lines = format_table(scores).splitlines()
    assert lines[1].split() == ["wedge", "1", "1", "1.000", "1.000", "2.00", "0.00", "-"]
    assert lines[2].split()[:7] == ["brick", "1", "0", "0.000", "0.000", "-", "-"]
    assert lines[2].endswith("reprojection_high 1")
    assert lines[3].split() == ["mean", "0.500", "0.500"]
    assert "mesh file is absent" in lines[4]


def test_nothing_to_score():
    scores = Scorer(LIBRARY).summarize()
    assert build_report(scores)["recall_add_01d"] is None
    assert format_table(scores).startswith("object")
