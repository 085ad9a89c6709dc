"""``python -m heatnet_ros onboard``: CAD files -> a model that the node runs, and a report.

Every step is one of the public commands in a process of its own. ``runs/NAME/onboard.json`` says
what is done: interrupted or killed at any moment, the same command continues.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import platform
import shlex
import shutil
import time
from collections.abc import Mapping
from typing import Any

from heatnet_ros import __version__
from heatnet_ros.datasets.entries import load_json
from heatnet_ros.datasets.synthesize import BYTES_PER_IMAGE
from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.machine import count_cores, describe_processor
from heatnet_ros.onboard.budget import (
    Plan,
    Rates,
    Wishes,
    adjust_training,
    make_fixed_plan,
    make_plan,
    remaining_s,
    rough_rates,
    total_s,
)
from heatnet_ros.onboard.calibration import measure_machine
from heatnet_ros.onboard.check import (
    CheckedObject,
    check_meshes,
    explain_choice,
    write_meshes,
)
from heatnet_ros.onboard.files import (
    training_content,
    write_params_file,
    write_scenes_file,
    write_training_file,
)
from heatnet_ros.onboard.options import Options, Places, places_of, read_options
from heatnet_ros.onboard.options import add_arguments as add_options
from heatnet_ros.onboard.report import write_report
from heatnet_ros.onboard.runner import Status, run_jobs, stop_leftovers
from heatnet_ros.onboard.state import (
    State,
    check_options,
    load_state,
    locked,
    remove_results,
    start_state,
)
from heatnet_ros.onboard.steps import (
    Step,
    keypoints_job,
    list_steps,
    list_todo,
    missing_packages,
    output_is_there,
)

NETWORKS = ("yolo", "heatnet")
# beside the images: their crops, checkpoints, models
BYTES_PER_CROPPED_IMAGE = 450_000
BYTES_BESIDE = 600_000_000
UNDECIDED = 3
_EPILOG = """\
Steps: check the meshes, keypoints, measure the machine, render, train both networks, export,
evaluate on held-out scenes, report. Each is a command of its own (keypoints, synthesize, train,
export, evaluate); what it said is in runs/NAME/logs/. Stopped or killed at any moment, the same
command continues. Symmetries are proposed; you decide.

results (below --out-root):
  config/objects/NAME.yaml, config/objects/NAME/   object library and meshes
  config/pose_NAME.yaml                            parameters of the node
  models/NAME_yolo/, models/NAME_heatnet/          networks
  runs/NAME/report.html                            accuracy, pictures, worst cases
data/NAME and the rest of runs/NAME may be deleted when it is done.

examples:
  python -m heatnet_ros onboard bracket.ply gear.stl --name parts --accept-symmetries
  python -m heatnet_ros onboard bracket.ply --name parts --no-symmetries --budget 2h --dry-run"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run or continue; 3 when the user has to decide about symmetries first.

    Raises HeatnetError with the step, the cause and the remedy.
    """
    missing = missing_packages()
    if missing and not args.dry_run:
        raise ConfigError(
            f"onboard renders and trains, which needs {', '.join(missing)}. Install them: pip "
            "install 'heatnet_ros[render,train]' (in a checkout: pip install -e '.[render,train]')."
        )
    options, places = read_options(args), places_of(args)
    if args.dry_run:
        return show_plan(options, places, args.workers)
    with locked(places):
        stop_leftovers(places.run)
        if args.restart:
            remove_results(places)
        state = load_state(places) or start_state(places, options, __version__)
        check_options(state, options)
        return Onboarding(options, places, args.workers, state).run()


def show_plan(options: Options, places: Places, workers: int) -> int:
    """Check the meshes and print what would be done; writes nothing."""
    check = check_meshes(options, _say)
    state = load_state(places)
    count = len(check.objects)
    if state is not None and "rates" in state:
        rates = Rates(**state["rates"])
    else:
        rates = rough_rates(count_cores(), count)
    plan = plan_for(options, rates, spent_s=0.0)
    _say("\n".join(["", "Plan:", *(f"  {reason}" for reason in plan.reasons), ""]))
    jobs = [keypoints_job(options, check.objects, places)]
    jobs += [job for step in list_steps(options, places, plan, workers) for job in step.jobs]
    for job in jobs:
        seconds = plan.estimates_s.get(job.name)
        told = "" if seconds is None else f"  # about {seconds / 60:.1f} min"
        _say(f"{job.shown()}{told}")
    if plan.estimates_s:
        wall = total_s(plan) / 60
        how = ", trainings side by side" if plan.side_by_side else ""
        _say(f"\nAbout {wall:.0f} of {options.budget_s / 60:.0f} minutes in all{how}.")
    if check.open_flags:
        _say(explain_choice(options, check.open_flags))
    return 0


def plan_for(options: Options, rates: Rates, spent_s: float) -> Plan:
    """The plan of these options on this machine. Raises ConfigError when there is no time."""
    if options.images is not None and options.samples is not None:
        return make_fixed_plan(options.images, options.test_images, options.samples, rates.cores)
    wishes = Wishes(options.budget_s, options.images, options.test_images, options.samples)
    return make_plan(wishes, rates, spent_s)


class Onboarding:
    """One run of the command, on the state that earlier ones left."""

    def __init__(self, options: Options, places: Places, workers: int, state: State) -> None:
        self.options, self.places, self.workers, self.state = options, places, workers, state
        self.status = Status()
        self._before_s, self._started_s = float(state["seconds"]), time.monotonic()

    def run(self) -> int:
        """Do what is left to do. Returns 0, or ``UNDECIDED``."""
        todo = self._todo()
        if not todo:
            self.status.say(f"Everything of '{self.places.name}' is done already.")
            return self._tell_result()
        if "check" in todo and not self._check():
            return UNDECIDED
        try:
            self._run_steps()
        except BaseException:
            # a full disk: the step's own error says more
            with contextlib.suppress(DataError):
                self._note_time()
            raise
        self._note_time()
        return self._tell_result()

    def spent_s(self) -> float:
        """Seconds of this and earlier runs."""
        return self._before_s + time.monotonic() - self._started_s

    @property
    def objects(self) -> list[CheckedObject]:
        """What was checked."""
        return [CheckedObject.from_plain(entry) for entry in self.state["objects"]]

    def _todo(self) -> set[str]:
        return list_todo(self.state.finished, self._is_there)

    def _is_there(self, step: str) -> bool:
        if step == "check":
            return all(self.places.mesh(item.name).exists() for item in self.objects)
        return output_is_there(step, self.places)

    def _note_time(self) -> None:
        self.state.put("seconds", round(self.spent_s(), 1))

    def _check(self) -> bool:
        """Look at the meshes; False when symmetries are undecided, and nothing is written then."""
        started_s = time.monotonic()
        check = check_meshes(self.options, self.status.say)
        if check.open_flags:
            self.status.say(explain_choice(self.options, check.open_flags))
            return False
        # first the state: a kill while meshes are written leaves a folder that is known to be ours
        self.state.put("objects", [item.plain() for item in check.objects])
        write_meshes(check, self.places)
        self.state.finish("check", [], time.monotonic() - started_s)
        return True

    def _run_steps(self) -> None:
        if "keypoints" in self._todo():
            self._run_step(Step((keypoints_job(self.options, self.objects, self.places),)), "")
        if "remarks" not in self.state or not self.places.scenes_file.exists():
            views = write_scenes_file(self.options, self.objects, self.places)
            for remark in views.remarks:
                self.status.say(f"note: {remark}")
            self.state.put("remarks", list(views.remarks))
        plan = self._load_plan() if "plan" in self.state else self._make_plan()
        self._check_room(plan)
        for number, step in enumerate(self._steps(plan), start=1):
            if not any(name in self._todo() for name in step.names):
                continue
            if any(name.startswith("train-") for name in step.names):
                plan = self._prepare_training(plan)
                # the thread count and the files are the same; the minutes may have changed
                step = self._steps(plan)[number - 1]
            if "evaluate" in step.names and not self.places.params.exists():
                write_params_file(self.places)
            self._run_step(step, self._tell_rest(plan, number))
        if "report" in self._todo():
            self._report(plan)

    def _steps(self, plan: Plan) -> list[Step]:
        return list_steps(self.options, self.places, plan, self.workers)

    def _run_step(self, step: Step, left: str) -> None:
        """Run those jobs of a step that are not done; what was made from older ones is stale."""
        todo = self._todo()
        jobs = [job for job in step.jobs if job.name in todo]
        if any(job.name.startswith(("train-", "export-")) for job in jobs):
            for name in ("evaluate", "report"):
                self.state.forget(name)
            shutil.rmtree(self.places.overlays, ignore_errors=True)
        for job in jobs:
            self.status.say(f"{job.name}: {job.shown()}")
        seconds = run_jobs(jobs, self.places.run, self.status, left, self._note_time)
        for job, took_s in zip(jobs, seconds, strict=True):
            self.state.finish(job.name, ["python", "-m", *job.arguments], took_s)
            self.status.say(f"{job.name}: done in {_minutes(took_s)}")
        self._note_time()

    def _make_plan(self) -> Plan:
        if self.options.needs_measuring:
            if "rates" not in self.state:
                self.status.say("measuring the machine: a few images, a moment of each training")
                rates = measure_machine(
                    self.options, self.objects, self.places, self.workers, self.status
                )
                self.state.put("rates", dataclasses.asdict(rates))
            rates = Rates(**self.state["rates"])
        else:
            rates = rough_rates(count_cores(), len(self.objects))
        plan = plan_for(self.options, rates, self.spent_s())
        for reason in plan.reasons:
            self.status.say(f"plan: {reason}")
        self.state.put("machine", describe_machine(rates))
        self._put_plan(plan)
        return plan

    def _put_plan(self, plan: Plan) -> None:
        self.state.put("plan", dataclasses.asdict(plan))

    def _load_plan(self) -> Plan:
        entry: dict[str, Any] = dict(self.state["plan"])
        return Plan(**{**entry, "reasons": tuple(entry["reasons"])})

    def _prepare_training(self, plan: Plan) -> Plan:
        """Training files for the time that is left, once: a training goes on with its minutes."""
        if "trainings_begun" not in self.state:
            plan = adjust_training(plan, self.options.budget_s, self.spent_s())
            self._put_plan(plan)
            self.state.put("trainings_begun", True)
        for network in NETWORKS:
            content = training_content(network, self.options, self.objects, self.places, plan)
            write_training_file(self.places.training_file(network), content)
        return plan

    def _check_room(self, plan: Plan) -> None:
        """Before hours of work: room for what is still to be written. Raises DataError."""
        todo = self._todo()
        wanted = 0
        if "crops" in todo:
            there = len(list((self.places.data / "train").glob("*/rgb/*.jpg")))
            wanted += max(plan.images - there, 0) * BYTES_PER_IMAGE
            wanted += plan.images * BYTES_PER_CROPPED_IMAGE
        if "train-heatnet" in todo:
            wanted += BYTES_BESIDE
        free = shutil.disk_usage(self.places.run).free
        if free < wanted:
            raise DataError(
                f"{self.places.run.resolve()} has {free / 1e9:.1f} GB free, {plan.images} images, "
                f"their crops and the trainings take about {wanted / 1e9:.1f} GB. Make room and "
                "run the same command again, or begin anew with another --out-root or fewer "
                "--images."
            )

    def _tell_rest(self, plan: Plan, number: int) -> str:
        steps = self._steps(plan)
        if not plan.estimates_s:
            return f"step {number} of {len(steps)}"
        rest_s = remaining_s(plan, [step.names for step in steps[number - 1 :]])
        end = time.localtime(time.time() + rest_s)
        return f"everything by about {time.strftime('%H:%M', end)}"

    def _report(self, plan: Plan) -> None:
        started_s = time.monotonic()
        self._note_time()
        commands = next_commands(self.places)
        write_report(self.places, self.state.document, self.objects, plan, commands)
        self.state.finish("report", [], time.monotonic() - started_s)

    def _tell_result(self) -> int:
        say, places = self.status.say, self.places
        if places.evaluation.exists():
            evaluation = load_json(places.evaluation, dict)
            say("\nADD(-S) below 0.1 of the diameter on held-out rendered scenes:")
            for name, entry in evaluation["objects"].items():
                say(f"  {name}: {entry['add_01d']:.3f} of {entry['targets']}")
            say(f"  mean: {evaluation['mean']['add_01d']:.3f}")
        say(f"\nReport: {places.report}   ({self.spent_s() / 60:.1f} min in all)")
        say("Next:\n" + "\n".join(f"  {line}" for line in next_commands(places)))
        return 0


def next_commands(places: Places) -> list[str]:
    """Command lines that use the model. They look for relative paths in the current folder."""
    params, whole = (shlex.quote(str(path)) for path in (places.params, places.params.resolve()))
    return [
        "python -m heatnet_ros predict photo.png --depth depth.png --camera FX,FY,CX,CY "
        f"--params {params}",
        f"ros2 launch heatnet_ros pose.launch.py params_file:={whole}",
    ]


def describe_machine(rates: Rates) -> Mapping[str, str]:
    """What the results were made on."""
    return {
        "processor": describe_processor(),
        "cores": str(rates.cores),
        "gpu": rates.gpu,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _say(text: str) -> None:
    print(text, flush=True)
