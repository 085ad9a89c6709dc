import math

import numpy as np
import pytest
from fakes import LIBRARY, MESHES, K, pose, render_depth

from heatnet_ros.errors import DataError
from heatnet_ros.evaluate import EvaluationModel, ImageTruth, Scorer, TruePose
from heatnet_ros.evaluation_models import EvaluationModels
from heatnet_ros.geometry.symmetry import rotation_about
from heatnet_ros.types import Detection, Distortion, PipelineResult, PoseEstimate, Reason, Rejection

T = pose(0.0, 0.0, 0.7)
BOX = (10.0, 10.0, 50.0, 50.0)


def result(
    *poses: PoseEstimate,
    rejected: tuple[Rejection, ...] = (),
    detections: tuple[Detection, ...] = (),
) -> PipelineResult:
    return PipelineResult(poses, rejected, detections, {}, {})


def estimate(name: str, T_camera_object: np.ndarray, score: float = 0.9) -> PoseEstimate:
    return PoseEstimate(name, T_camera_object, score, 1.0, 0.5, "test")


def shifted(mm: float) -> np.ndarray:
    out = T.copy()
    out[0, 3] += mm * 1e-3
    return out


def seen(*truths: TruePose, targets=None, depth_m=None, width_px: int = 640) -> ImageTruth:
    return ImageTruth("image", K, width_px, truths, targets, depth_m)


def scorer(known=tuple(LIBRARY.objects)) -> Scorer:
    return Scorer(known, EvaluationModels(LIBRARY).load)


def test_misses_count_and_medians_are_over_what_was_found():
    scores = scorer()
    truth = seen(TruePose("wedge", T))
    assert LIBRARY["wedge"].diameter_m == pytest.approx(0.13, abs=0.01)  # threshold about 13 mm
    for mm in (2.0, 4.0, 40.0):
        scores.add(result(estimate("wedge", shifted(mm))), truth)
    scores.add(result(rejected=(Rejection("wedge", Reason.NO_DEPTH),)), truth)
    score = scores.summarize().scores["wedge"]
    assert (score.targets, score.found) == (4, 3)
    # 2 mm is 0.016 diameters, 4 mm 0.031
    assert (score.add_002d, score.add_005d, score.add_01d) == (0.25, 0.5, 0.5)
    assert score.auc == pytest.approx((0.98 + 0.96 + 0.6 + 0) / 4)
    assert score.proj_5px == 0.5  # 2 and 4 mm at 0.7 m are 1.8 and 3.5 px
    # 2 and 4 mm are below all of BOP's thresholds in diameters; 40 mm is 0.31 d: 4 of 10
    assert score.mssd == pytest.approx((1 + 1 + 0.4) / 4)
    # 40 mm at 0.64 to 0.77 m are more than 31 px: at most 3 of 10
    assert score.mspd == pytest.approx((1 + 1 + 0.3) / 4)
    assert score.vsd is None
    assert score.median_error_mm == pytest.approx(4.0)
    assert score.median_error_deg == pytest.approx(0.0, abs=1e-6)
    assert score.rejected == {"no_depth": 1}
    assert score.measured_on == "surface"


def test_every_target_has_a_record_that_says_what_went_wrong():
    scores = scorer()
    truth = seen(TruePose("wedge", T, 0.6))
    scores.add(result(estimate("wedge", shifted(4), 0.8)), truth)
    scores.add(result(rejected=(Rejection("wedge", Reason.SCORE_LOW),)), truth)
    scores.add(result(detections=(Detection("wedge", BOX, 0.5),)), truth)
    scores.add(result(detections=(Detection("disc", BOX, 0.5),)), truth)
    found, *missed = scores.summarize().records
    assert (found.image, found.object, found.found, found.reason) == ("image", "wedge", True, "")
    assert (found.visible_fraction, found.score) == (0.6, 0.8)
    assert found.add_diameters == pytest.approx(0.004 / LIBRARY["wedge"].diameter_m)
    assert found.mssd_diameters == pytest.approx(found.add_diameters)
    assert found.projection_px == pytest.approx(615 * 0.004 / 0.7, rel=0.1)
    assert found.translation_mm == pytest.approx(4.0)
    assert [r.reason for r in missed] == ["score_low", "no_pose_kept", "not_detected"]
    assert not any(r.found for r in missed)
    assert [r.add_diameters for r in missed] == [None, None, None]


def test_symmetric_objects_use_adds():
    turned = T @ rotation_about(np.array([0.0, 0, 1]), np.zeros(3), np.pi)
    scores = scorer()
    scores.add(
        result(estimate("brick", turned), estimate("wedge", turned)),
        seen(TruePose("brick", T), TruePose("wedge", T)),
    )
    brick, wedge = (scores.summarize().scores[name] for name in ("brick", "wedge"))
    assert brick.symmetric
    assert (brick.add_01d, brick.mssd, brick.mspd, brick.proj_5px) == (1, 1, 1, 1)
    assert brick.median_error_deg == pytest.approx(0.0, abs=1e-4)
    assert not wedge.symmetric
    assert wedge.add_01d == 0.0
    assert wedge.median_error_deg == pytest.approx(180.0, abs=1e-4)


def test_mspd_thresholds_grow_with_the_image():
    recalls = []
    for width_px in (640, 1280):
        scores = scorer()
        scores.add(
            result(estimate("wedge", shifted(10))), seen(TruePose("wedge", T), width_px=width_px)
        )
        recalls.append(scores.summarize().scores["wedge"].mspd)
    # 8.0 to 9.6 px: below 10 to 50 px, 9 of 10; of twice the size, below 10 to 100 px, all
    assert recalls == [pytest.approx(0.9), pytest.approx(1.0)]


def test_without_a_targets_file_what_is_visible_to_a_tenth_is_a_target():
    scores = scorer(("wedge", "brick"))
    truths = (
        TruePose("wedge", T, 0.09),
        TruePose("wedge", shifted(200), 0.1),
        TruePose("disc", T, 1.0),
    )
    scores.add(result(), seen(*truths))
    evaluation = scores.summarize()
    assert list(evaluation.scores) == ["wedge"]
    assert evaluation.scores["wedge"].targets == 1
    assert evaluation.scores["wedge"].median_error_mm is None
    assert evaluation.not_in_model == {"disc": 1}
    assert not evaluation.counts_unknown


def test_a_targets_file_asks_for_the_most_visible_instances_however_hidden():
    scores = scorer(("wedge",))
    truths = [TruePose("wedge", shifted(mm), v) for mm, v in ((0, 0.02), (100, 0.05), (200, 0.04))]
    truths.append(TruePose("disc", T, 1.0))
    found = result(estimate("wedge", shifted(100)), estimate("wedge", shifted(0)))
    scores.add(found, seen(*truths, targets={"wedge": 2, "disc": 1}))
    evaluation = scores.summarize()
    assert [r.visible_fraction for r in evaluation.records] == [0.05, 0.04]
    assert evaluation.scores["wedge"].add_01d == 0.5
    assert evaluation.not_in_model == {"disc": 1}
    assert evaluation.counts_unknown
    with pytest.raises(DataError, match="asks for 2 of 'disc', the ground truth has 1"):
        scores.add(found, seen(*truths, targets={"disc": 2}))


def test_several_instances_are_matched_one_to_one():
    scores = scorer()
    truth = seen(TruePose("wedge", T), TruePose("wedge", shifted(100)))
    scores.add(
        result(estimate("wedge", shifted(101), 0.9), estimate("wedge", shifted(1), 0.8)), truth
    )
    score = scores.summarize().scores["wedge"]
    assert score.add_01d == 1.0
    assert (score.mssd, score.mspd) == (1.0, 1.0)
    assert score.median_error_mm == pytest.approx(1.0)


def test_a_third_estimate_of_two_instances_does_not_count():
    scores = scorer()
    truth = seen(TruePose("wedge", T), TruePose("wedge", shifted(100)))
    wrong = [estimate("wedge", shifted(mm), 0.9) for mm in (300, 400)]
    scores.add(result(estimate("wedge", shifted(1), 0.8), *wrong), truth)
    assert scores.summarize().scores["wedge"].add_01d == 0.0


def _with_mesh(name: str) -> EvaluationModel:
    model = LIBRARY[name]
    mesh = MESHES[name]
    return EvaluationModel(mesh.vertices_m, model.diameter_m, model.symmetries, mesh, "mesh")


def test_vsd_is_over_the_targets_with_depth():
    measured = render_depth([("brick", T)], Distortion())

    def render(mesh, K_, T_camera_object, size_wh):
        assert size_wh == (640, 480)
        assert mesh is MESHES["brick"]
        alone = render_depth([("brick", T_camera_object)], Distortion())
        return np.where(alone < 1.5, alone, 0).astype(np.float32)

    scores = Scorer(("brick",), _with_mesh, render)
    truth = TruePose("brick", T)
    scores.add(result(estimate("brick", T)), seen(truth, depth_m=measured))
    aside = estimate("brick", shifted(150))
    scores.add(result(aside), seen(truth, depth_m=measured))
    scores.add(result(estimate("brick", T)), seen(truth))
    score = scores.summarize().scores["brick"]
    assert (score.targets, score.vsd_targets) == (3, 2)
    assert score.vsd == 0.5
    assert [r.vsd for r in scores.summarize().records] == [0.0, 1.0, None]


def test_recall_is_never_nan():
    assert scorer().summarize().scores == {}
    scores = scorer()
    scores.add(result(), seen(TruePose("wedge", T)))
    score = scores.summarize().scores["wedge"]
    assert not any(math.isnan(v) for v in (score.auc, score.add_01d, score.mspd, score.mssd))
