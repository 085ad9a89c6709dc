import json

import numpy as np
import pytest

from heatnet_ros.evaluate import Evaluation, ObjectScore
from heatnet_ros.evaluation_report import (
    PAPER,
    average_recalls,
    build_report,
    format_paper_table,
    format_table,
    mean_scores,
)


def score(recall: float, targets: int = 4, vsd: float | None = None, **changes) -> ObjectScore:
    values = {
        "targets": targets, "found": 2, "symmetric": False, "add_002d": recall, "add_005d": recall,
        "add_01d": recall, "auc": recall, "proj_5px": recall, "mspd": recall, "mssd": recall,
        "vsd": vsd, "vsd_targets": 0 if vsd is None else targets, "median_error_mm": 2.0,
        "median_error_deg": None, "measured_on": "models_eval", "rejected": {},
    }  # fmt: skip
    return ObjectScore(**values | changes)


def evaluation(counts_unknown: bool = False, vsd: float | None = None, **not_in_model: int):
    scores = {"ape": score(0.5, 4, vsd), "glue": score(1.0, 12, vsd, symmetric=True)}
    return Evaluation(scores, [], not_in_model, counts_unknown)


def test_paper_columns_have_the_papers_means():
    means = np.mean(list(PAPER.values()), axis=0)
    np.testing.assert_allclose(means, [97.4, 86.70, 84.50, 92.41], atol=0.051)
    assert len(PAPER) == 13


def test_means_are_over_objects_and_average_recalls_over_targets():
    assert mean_scores(evaluation(), True)["add_01d"] == 0.75
    assert mean_scores(evaluation(), True)["targets"] == 16
    recalls = average_recalls(evaluation(), True)
    assert recalls["mspd"] == pytest.approx((0.5 * 4 + 1.0 * 12) / 16)
    assert recalls["ar"] == recalls["mssd"] == recalls["mspd"]
    assert recalls["vsd"] is None


def test_objects_that_were_asked_for_and_are_unknown_count_as_failures():
    asked = evaluation(True, cat=16, duck=0)
    assert mean_scores(asked, True)["add_01d"] == pytest.approx(1.5 / 4)
    assert mean_scores(asked, True)["vsd"] is None
    assert mean_scores(asked, False)["add_01d"] == 0.75
    assert average_recalls(asked, True)["ar"] == pytest.approx(14 / 32)
    assert average_recalls(asked, False)["ar"] == pytest.approx(14 / 16)
    report = build_report(asked)
    assert report["mean"]["add_01d"] < report["mean_in_model"]["add_01d"]
    assert report["ar"] < report["ar_in_model"]
    assert report["objects_not_in_model"] == {"cat": 16, "duck": 0}
    # without a targets file nobody asked for them
    beside = evaluation(False, cat=16)
    assert mean_scores(beside, True)["add_01d"] == 0.75
    assert average_recalls(beside, True)["ar"] == pytest.approx(14 / 16)


def test_vsd_is_part_of_ar_only_where_all_targets_have_it():
    recalls = average_recalls(evaluation(vsd=0.2), True)
    assert recalls["vsd"] == pytest.approx(0.2)
    assert recalls["ar"] == pytest.approx((2 * 0.875 + 0.2) / 3)
    some = evaluation(vsd=0.2)
    partly = {"ape": some.scores["ape"], "glue": score(1.0, 12, 0.8, vsd_targets=4)}
    recalls = average_recalls(Evaluation(partly, [], {}, False), True)
    assert recalls["vsd"] == pytest.approx(0.5)
    assert recalls["ar"] == pytest.approx(0.875)


def test_report_is_json_without_nan_and_says_what_is_missing():
    report = json.loads(json.dumps(build_report(evaluation()), allow_nan=False))
    wanted = {
        "targets", "add_002d", "add_005d", "add_01d", "proj_5px", "mspd", "mssd", "vsd",
    }  # fmt: skip
    assert wanted <= set(report["objects"]["ape"])
    assert wanted <= set(report["mean"])
    assert report["mean"]["vsd"] is None
    assert "No target has a VSD" in report["notes"][0]
    empty = Evaluation({}, [], {}, False)
    assert build_report(empty)["mean"]["add_01d"] is None
    assert build_report(empty)["ar"] is None
    everything_unknown = Evaluation({}, [], {"cat": 3}, True)
    assert build_report(everything_unknown)["mean"]["add_01d"] == 0.0
    assert build_report(everything_unknown)["ar"] == 0.0


def test_table_in_the_papers_form():
    lines = format_paper_table(evaluation(True, cat=5), {"ape": 0.9}).splitlines()
    assert lines[1].split() == ["ape", "90.00", "50.00", "96.10", "61.14", "52.42", "73.39"]
    assert lines[2].split()[:4] == ["glue*", "-", "100.00", "94.50"]
    assert lines[3].startswith("mean of 2 ")
    assert lines[3].split()[3:5] == ["90.00", "75.00"]
    assert lines[4].startswith("cat (not in model)")
    assert lines[5].startswith("mean of all 3")
    assert lines[5].split()[-1] == "50.00"
    assert "Tables 2 and 4" in lines[6]


def test_objects_that_are_not_the_papers_have_no_paper_columns():
    others = Evaluation({"bracket": score(0.25)}, [], {}, False)
    text = format_paper_table(others, {"bracket": 1.0})
    assert "T2" not in text
    assert text.splitlines()[1].split() == ["bracket", "100.00", "25.00"]


def test_nothing_the_model_knows():
    lines = format_paper_table(Evaluation({}, [], {"cat": 3}, True), {}).splitlines()
    assert lines[-1].split() == ["mean", "of", "all", "1", "-", "0.00"]
    assert format_table(Evaluation({}, [], {}, False)).startswith("object")


def test_table_of_all_metrics():
    found = evaluation(True, vsd=0.2, cat=5)
    scores = dict(found.scores)
    scores["ape"] = score(0.5, rejected={"score_low": 2}, measured_on="surface")
    lines = format_table(Evaluation(scores, [], found.not_in_model, True)).splitlines()
    assert lines[1].split()[:5] == ["ape", "4", "2", "0.500", "0.500"]
    assert lines[1].split()[-3:] == ["-", "2.000", "-"]
    assert lines[3].split() == ["cat", "(not", "in", "model)", "5"]
    assert lines[4].split()[:4] == ["mean", "16", "-", "0.750"]
    assert lines[5].split()[:6] == ["mean", "of", "all", "21", "-", "0.500"]
    text = "\n".join(lines)
    assert "ape rejected: score_low 2" in text
    assert "ape: the mesh file is absent" in text
    assert "Not in the model: cat (5)" in text
