import argparse

import pytest

from heatnet_ros.__main__ import build_parser
from heatnet_ros.onboard.budget import Wishes, make_fixed_plan, make_plan, rough_rates
from heatnet_ros.onboard.check import CheckedObject
from heatnet_ros.onboard.options import Places, add_arguments, read_options
from heatnet_ros.onboard.steps import NEEDS, keypoints_job, list_steps, list_todo, output_is_there

EVERYTHING = set(NEEDS)
NAMES = list(NEEDS)


def options_of(tmp_path, *more):
    mesh = tmp_path / "part.ply"
    mesh.write_text("not read here")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = [str(mesh), "--name", "parts", "--out-root", str(tmp_path), *more]
    return read_options(parser.parse_args(words))


def part(symmetries=()):
    return CheckedObject("part", "part.ply", 0.1, (0.1, 0.1, 0.1), "varied", "", (), symmetries, ())


def test_at_first_everything_is_to_do():
    assert list_todo((), lambda step: False) == EVERYTHING


def test_when_all_is_done_and_there_nothing_is_to_do():
    assert list_todo(EVERYTHING, lambda step: True) == set()


@pytest.mark.parametrize("deleted", ["render-train", "render-test", "crops", "train-heatnet"])
def test_what_nobody_reads_any_more_may_be_deleted(deleted):
    assert list_todo(EVERYTHING, lambda step: step != deleted) == set()


@pytest.mark.parametrize("count", range(len(NAMES)))
def test_after_an_interruption_the_rest_is_to_do(count):
    done = NAMES[:count]
    assert list_todo(done, lambda step: True) == set(NAMES[count:])


def test_images_that_a_pending_training_reads_are_made_again():
    done = {"check", "keypoints", "render-train", "render-test"}
    todo = list_todo(done, lambda step: step != "render-train")
    assert todo == (EVERYTHING - done) | {"render-train"}


def test_a_lost_library_is_made_again_and_nothing_else():
    assert list_todo(EVERYTHING, lambda step: step != "keypoints") == {"keypoints"}


def test_a_lost_model_is_exported_and_measured_again():
    todo = list_todo(EVERYTHING, lambda step: step != "export-yolo")
    assert todo == {"export-yolo", "evaluate", "report"}
    lost = {"export-yolo", "train-yolo", "crops", "render-test"}
    todo = list_todo(EVERYTHING, lambda step: step not in lost)
    assert todo == {"crops", "train-yolo", "export-yolo", "render-test", "evaluate", "report"}


def test_a_lost_report_needs_the_evaluation_only_where_that_is_lost_too():
    assert list_todo(EVERYTHING, lambda step: step != "report") == {"report"}
    assert list_todo(EVERYTHING, lambda step: step not in ("report", "evaluate")) == {
        "evaluate",
        "report",
    }


@pytest.mark.parametrize("cores", [1, 2])
def test_every_step_is_a_command_line_that_its_command_accepts(tmp_path, cores):
    options = options_of(tmp_path)
    places = Places(tmp_path, "parts")
    plan = make_plan(Wishes(3600.0), rough_rates(cores, 1), 0.0)
    steps = list_steps(options, places, plan, workers=2)
    jobs = [keypoints_job(options, [part(("part:axis=0,0,1:fold=2",))], places)]
    jobs += [job for step in steps for job in step.jobs]
    for job in jobs:
        module, *arguments = job.arguments
        if job.name == "crops":
            assert module == "heatnet_ros.onboard.crops"
            continue
        assert module == "heatnet_ros"
        build_parser(arguments[0]).parse_args(arguments)
        assert job.log == tmp_path / "runs" / "parts" / "logs" / f"{job.name}.log"
    assert [job.name for job in jobs] == [n for n in NEEDS if n not in ("check", "report")]
    assert max(len(step.jobs) for step in steps) == cores
    assert "--symmetry part:axis=0,0,1:fold=2" in jobs[0].shown()


def test_outputs_are_looked_for_where_the_steps_write_them(tmp_path):
    places = Places(tmp_path, "parts")
    made = {
        "keypoints": places.library,
        "render-test": places.data / "test" / "000000" / "scene_gt.json",
        "crops": places.data / "crops" / "train-0123456789" / "shard_00000.npz",
        "train-yolo": places.training("yolo") / "final.pt",
        "export-heatnet": places.model("heatnet") / "manifest.yaml",
        "evaluate": places.evaluation,
        "report": places.report,
    }
    for step, path in made.items():
        assert not output_is_there(step, places)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        assert output_is_there(step, places)


def test_a_fixed_plan_gives_the_same_steps(tmp_path):
    options = options_of(tmp_path, "--images", "120", "--samples", "640")
    plan = make_fixed_plan(120, 20, 640, cores=2)
    steps = list_steps(options, Places(tmp_path, "parts"), plan, workers=1)
    assert "--images 20" in steps[1].jobs[0].shown()
    assert steps[3].jobs[0].shown().startswith("OMP_NUM_THREADS=1 python -m heatnet_ros train")
