"""The steps of an onboarding, each the command line that a user would type."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from heatnet_ros.onboard.budget import Plan
from heatnet_ros.onboard.check import CheckedObject
from heatnet_ros.onboard.options import Options, Places
from heatnet_ros.onboard.runner import Job

COMMAND = "heatnet_ros"
# step -> the steps whose results it reads
NEEDS: Mapping[str, tuple[str, ...]] = {
    "check": (),
    "keypoints": ("check",),
    "render-train": ("keypoints",),
    "render-test": ("keypoints",),
    "crops": ("render-train",),
    "train-yolo": ("crops",),
    "train-heatnet": ("crops",),
    "export-yolo": ("train-yolo",),
    "export-heatnet": ("train-heatnet",),
    "evaluate": ("export-yolo", "export-heatnet", "render-test"),
    "report": ("evaluate", "render-test"),
}
# what the user came for; everything else may be deleted to make room
RESULTS = ("check", "keypoints", "export-yolo", "export-heatnet", "report")
# done again they give the same: what was made from them stays good
_REPEATABLE = ("check", "keypoints", "render-train", "render-test", "crops")
_NEEDED = ("torch", "ultralytics", "onnx", "openvino", "onnxruntime", "moderngl", "trimesh")


@dataclass(frozen=True)
class Step:
    """Jobs that run side by side; ``names`` are those of ``Plan.estimates_s``."""

    jobs: tuple[Job, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the jobs."""
        return tuple(job.name for job in self.jobs)


def keypoints_job(options: Options, objects: Sequence[CheckedObject], places: Places) -> Job:
    """Normalised meshes -> object library."""
    arguments = ["keypoints", *(str(places.mesh(item.name)) for item in objects)]
    arguments += ["--name", options.name, "--out", str(places.library), "--unit", "m"]
    arguments += ["--count", str(options.keypoints), "--seed", str(options.seed)]
    for item in objects:
        for flag in item.symmetries:
            arguments += ["--symmetry", flag]
    # a library that is there is one that a killed run of this step left
    return _job("keypoints", [*arguments, "--force"], places)


def render_job(options: Options, places: Places, split: str, images: int, workers: int) -> Job:
    """Object library -> a split of the data set."""
    arguments = ["synthesize", "--scenes-file", str(places.scenes_file), "--out", str(places.data)]
    arguments += ["--split", split, "--images", str(images), "--seed", str(options.seed)]
    arguments += ["--workers", str(workers)]
    return _job(f"render-{split}", arguments, places)


def crops_job(places: Places) -> Job:
    """Data set -> shards of crops and frames."""
    arguments = ("heatnet_ros.onboard.crops", "--objects", str(places.library))
    return Job("crops", (*arguments, "--dataset", str(places.data)), places.log("crops"))


def training_job(network: str, places: Places, threads: int) -> Job:
    """Shards -> trained network. threads 0: all."""
    arguments = ["train", "--config", str(places.training_file(network))]
    arguments += ["--out", str(places.training(network))]
    env = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    return _job(f"train-{network}", arguments, places, env)


def list_steps(options: Options, places: Places, plan: Plan, workers: int) -> list[Step]:
    """Everything after the plan, in order; the report is not among them."""
    trainings = [training_job(network, places, plan.threads) for network in ("yolo", "heatnet")]
    steps = [
        Step((render_job(options, places, "train", plan.images, workers),)),
        Step((render_job(options, places, "test", plan.test_images, workers),)),
        Step((crops_job(places),)),
    ]
    if plan.side_by_side:
        steps.append(Step(tuple(trainings)))
    else:
        steps += [Step((job,)) for job in trainings]
    for network in ("yolo", "heatnet"):
        arguments = ["export", "--run", str(places.training(network))]
        arguments += ["--out", str(places.model(network))]
        steps.append(Step((_job(f"export-{network}", arguments, places),)))
    arguments = ["evaluate", "--dataset", str(places.data), "--split", "test"]
    arguments += ["--params", str(places.params), "--json", str(places.evaluation)]
    arguments += ["--out", str(places.overlays)]
    return [*steps, Step((_job("evaluate", arguments, places),))]


def list_todo(finished: Collection[str], is_there: Callable[[str], bool]) -> set[str]:
    """Steps to run. finished: those that ended well. is_there: whether a step's output still is.

    What was deleted is made again only where it is a result or a step to run reads it. A network
    that is trained anew is exported and evaluated anew.
    """
    todo: set[str] = set()
    while True:
        found = set()
        for step, needed in NEEDS.items():
            read = step in RESULTS or any(step in NEEDS[other] for other in todo)
            stale = any(other in todo and other not in _REPEATABLE for other in needed)
            if step not in finished or stale or (read and not is_there(step)):
                found.add(step)
        if found == todo:
            return todo
        todo = found


def output_is_there(step: str, places: Places) -> bool:
    """Whether what a finished step made still exists; the user may have cleaned up."""
    if step.startswith("render-"):
        folder = places.data / step.removeprefix("render-")
        return folder.is_dir() and any(folder.glob("*/scene_gt.json"))
    if step == "crops":
        return any(places.data.glob("crops/train-*/shard_*.npz"))
    if step.startswith("train-"):
        return (places.training(step.removeprefix("train-")) / "final.pt").exists()
    if step.startswith("export-"):
        return (places.model(step.removeprefix("export-")) / "manifest.yaml").exists()
    if step == "evaluate":
        return places.evaluation.exists()
    if step == "report":
        return places.report.exists()
    return places.library.exists()


def _job(name: str, arguments: Sequence[str], places: Places, env: dict[str, str] | None = None,
         ) -> Job:  # fmt: skip
    return Job(name, (COMMAND, *arguments), places.log(name), env or {})


def missing_packages() -> list[str]:
    """Packages that the steps need and this Python does not have."""
    return [name for name in _NEEDED if importlib.util.find_spec(name) is None]
