"""The command with its own processes; only the jobs are small ones that note that they ran."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from child_environment import child_environment
from fakes import MESHES

from heatnet_ros.__main__ import main
from heatnet_ros.mesh import write_ply
from heatnet_ros.onboard.options import Places
from heatnet_ros.onboard.steps import NEEDS
from heatnet_ros.onboard_command import UNDECIDED, next_commands

JOBS = [name for name in NEEDS if name not in ("check", "report")]

# replaces what jobs do, and the report, which needs their results; all else is the command's own
_DRIVER = """
import sys
from pathlib import Path
from heatnet_ros import onboard_command
from heatnet_ros.__main__ import main
from heatnet_ros.onboard.runner import Job
from heatnet_ros.onboard.steps import Step

def small(job):
    outputs = {
        "keypoints": places.library,
        "render-train": places.data / "train" / "000000" / "scene_gt.json",
        "render-test": places.data / "test" / "000000" / "scene_gt.json",
        "crops": places.data / "crops" / "train-0" / "shard_00000.npz",
        "train-yolo": places.training("yolo") / "final.pt",
        "train-heatnet": places.training("heatnet") / "final.pt",
        "export-yolo": places.model("yolo") / "manifest.yaml",
        "export-heatnet": places.model("heatnet") / "manifest.yaml",
        "evaluate": places.evaluation,
    }
    words = ("small_job", job.name, str(places.root / "ran"), str(outputs[job.name]))
    return Job(job.name, words, job.log)

def small_steps(options, here, plan, workers):
    steps = list_steps(options, here, plan, workers)
    return [Step(tuple(small(job) for job in step.jobs)) for step in steps]

def report(places, document, objects, plan, commands):
    places.report.write_text("\\n".join(commands))

from heatnet_ros.onboard.options import Places
places = Places(Path(sys.argv[1]), "parts")
list_steps, keypoints_job = onboard_command.list_steps, onboard_command.keypoints_job
onboard_command.list_steps = small_steps
onboard_command.keypoints_job = lambda *words: small(keypoints_job(*words))
onboard_command.missing_packages = list
onboard_command.write_report = report
sys.exit(main(sys.argv[2:]))
"""
_SMALL_JOB = """
import os, sys, time
from pathlib import Path
name, ran, output = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
with ran.open("a") as file:
    file.write(name + "\\n")
if os.environ.get("SLOW") == name:
    time.sleep(60)
if os.environ.get("FAIL") == name:
    sys.exit("error: No space left for " + name)
score = '{"add_01d": 0.5, "targets": 4}'
output.parent.mkdir(parents=True, exist_ok=True)
output.write_text('{"objects": {"brick": %s}, "mean": %s}' % (score, score))
"""


class Driven:
    """Runs the command in a process of its own, with small jobs."""

    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path / "root"
        self.root.mkdir()
        self.mesh = tmp_path / "brick.ply"
        write_ply(self.mesh, MESHES["brick"])
        modules = tmp_path / "modules"
        modules.mkdir()
        (modules / "small_job.py").write_text(_SMALL_JOB)
        self.driver = tmp_path / "driver.py"
        self.driver.write_text(_DRIVER)
        self.env = child_environment(modules)

    def start(self, *more: str, **env: str) -> "subprocess.Popen[str]":
        words = ["onboard", str(self.mesh), "--name", "parts", "--out-root", str(self.root)]
        words += ["--no-symmetries", "--images", "120", "--samples", "640", *more]
        return subprocess.Popen(
            [sys.executable, str(self.driver), str(self.root), *words], env=self.env | env,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *more: str, **env: str) -> tuple[int, str]:
        process = self.start(*more, **env)
        out, err = process.communicate(timeout=60)
        return process.returncode, out + err

    def kill_in(self, step: str) -> None:
        process = self.start(SLOW=step)
        limit_s = time.monotonic() + 50
        while step not in self.ran():
            assert process.poll() is None and time.monotonic() < limit_s, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()

    def ran(self) -> list[str]:
        path = self.root / "ran"
        return path.read_text().splitlines() if path.exists() else []

    def state(self) -> dict:
        return json.loads((self.root / "runs" / "parts" / "onboard.json").read_text())


@pytest.fixture
def driven(tmp_path):
    return Driven(tmp_path)


def test_it_runs_every_step_once_and_then_says_so(driven):
    code, said = driven.run()
    assert code == 0, said
    assert sorted(driven.ran()) == sorted(JOBS)
    assert list(driven.state()["finished"]) == list(NEEDS)
    assert "brick: 0.500 of 4" in said
    assert f"params_file:={driven.root}/config/pose_parts.yaml" in said
    for path in ("config/objects/parts/brick.ply", "config/pose_parts.yaml", "runs/parts/yolo.yaml",
                 "runs/parts/heatnet.yaml", "runs/parts/scenes.yaml"):  # fmt: skip
        assert (driven.root / path).exists()
    code, said = driven.run()
    assert code == 0 and "is done already" in said
    assert len(driven.ran()) == len(JOBS)


@pytest.mark.parametrize("step", ["keypoints", "render-train", "train-heatnet", "evaluate"])
def test_killed_in_a_step_the_same_command_continues_with_that_step(driven, step):
    driven.kill_in(step)
    before = driven.ran()
    code, said = driven.run()
    assert code == 0, said
    again = driven.ran()[len(before) :]
    assert step in again and list(driven.state()["finished"]) == list(NEEDS)
    # what ran side by side with it was not noted as done
    side_by_side = {"train-yolo", "train-heatnet"}
    assert set(before) & set(again) <= ({step} | (side_by_side if step in side_by_side else set()))


def test_a_step_that_fails_is_told_and_done_again(driven):
    code, said = driven.run(FAIL="crops")
    assert code == 1
    assert "error: Step 'crops' ended with exit status 1: No space left for crops" in said
    code, said = driven.run()
    assert code == 0, said
    assert driven.ran().count("crops") == 2 and driven.ran().count("render-train") == 1


def test_other_options_are_refused_and_restart_begins_anew(driven):
    driven.run()
    code, said = driven.run("--seed", "7")
    assert code == 1 and "--seed: 0 then, 7 now" in said
    assert len(driven.ran()) == len(JOBS)
    code, said = driven.run("--seed", "7", "--restart")
    assert code == 0, said
    assert len(driven.ran()) == 2 * len(JOBS) and driven.state()["options"]["seed"] == 7


def test_a_deleted_data_set_is_no_matter_but_a_deleted_model_is_made_again(driven):
    driven.run()
    places = Places(driven.root, "parts")
    (places.data / "train" / "000000" / "scene_gt.json").unlink()
    assert "is done already" in driven.run()[1]
    (places.model("yolo") / "manifest.yaml").unlink()
    code, said = driven.run()
    assert code == 0, said
    assert driven.ran()[len(JOBS) :] == ["export-yolo", "evaluate"]


def brick(tmp_path: Path) -> Path:
    path = tmp_path / "brick.ply"
    write_ply(path, MESHES["brick"])
    return path


def test_the_plan_is_shown_and_nothing_written(tmp_path, capsys):
    mesh, root = brick(tmp_path), tmp_path / "root"
    words = ["onboard", str(mesh), "--name", "parts", "--out-root", str(root), "--dry-run"]
    assert main([*words, "--budget", "60m"]) == 0
    said = capsys.readouterr().out
    for name in ("keypoints", "synthesize", "train", "export", "evaluate"):
        assert f"python -m heatnet_ros {name}" in said
    assert "of 60 minutes in all" in said and "TO DECIDE" in said
    assert not root.exists()


def test_undecided_symmetries_end_it_before_anything_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("heatnet_ros.onboard.steps._NEEDED", ())
    mesh, root = brick(tmp_path), tmp_path / "root"
    words = ["onboard", str(mesh), "--name", "parts", "--out-root", str(root)]
    assert main(words) == UNDECIDED
    assert "--accept-symmetries" in capsys.readouterr().out
    assert [path.name for path in root.rglob("*") if path.is_file()] == ["onboard.lock"]


def test_missing_packages_are_named_at_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("heatnet_ros.onboard.steps._NEEDED", ("numpy", "no_such_package"))
    assert main(["onboard", str(brick(tmp_path)), "--name", "parts"]) == 1
    said = capsys.readouterr().err
    assert "needs no_such_package. Install" in said


def test_commands_to_copy_have_quoted_paths():
    predict, launch = next_commands(Places(Path("/my data"), "parts"))
    assert "--params '/my data/config/pose_parts.yaml'" in predict
    assert launch.endswith("params_file:='/my data/config/pose_parts.yaml'")
