"""A time budget and a measured machine -> how many images, which networks, how many minutes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from heatnet_ros.errors import ConfigError

# part of the working time that goes into images instead of training
RENDER_SHARE = 0.22
# more images than are seen this often in training are not worth rendering
LEAST_PASSES = 3.0
LEAST_IMAGES, MOST_IMAGES = 200, 20_000
IMAGES_PER_SCENE = 20
# the first hundred are held out of training
LEAST_IMAGES_OF_A_SET = 120
TEST_IMAGES = 200
# left over for what is not foreseen
MARGIN = 0.06
LEAST_TRAINING_S = 150.0
# one after the other, the detector needs less
DETECTOR_SHARE = 0.4
# HeatNet's width on a CPU grows when there is time for so many crops; it costs this much more
WIDE_FROM_CROPS, WIDE_COST = 120_000, 1.35
NARROW, WIDE, GPU_WIDTH = 24, 32, 64
REPORT_S = 20.0
AFTER_TRAINING = ("export-yolo", "export-heatnet", "evaluate", "report")
EVALUATION_START_S = 20.0


@dataclass(frozen=True)
class Rates:
    """What a machine does, for the networks that ``choose_networks`` gives without knowing it.

    images_per_s: rendered, all workers together. cut_per_s: images cut into crops. crops_per_s,
    frames_per_s: HeatNet's and the detector's training, as they will run (side by side or alone).
    crops_per_image: objects that are visible enough. start_s: of a training, beyond its minutes.
    measured: False for rough numbers that only ``--dry-run`` uses.
    """

    cores: int
    gpu: str
    images_per_s: float
    cut_per_s: float
    crops_per_s: float
    frames_per_s: float
    crops_per_image: float
    start_s: float
    measured: bool = True

    @property
    def side_by_side(self) -> bool:
        """Whether both trainings run at once: more samples in all on a CPU of several cores."""
        return self.cores >= 2 and not self.gpu


@dataclass(frozen=True)
class Plan:
    """What will be done. minutes 0: ``samples`` says when a training ends.

    estimates_s: step -> seconds. reasons: sentences for the user.
    """

    images: int
    test_images: int
    width: int
    detector_size: str
    yolo_minutes: float
    heatnet_minutes: float
    samples: int
    side_by_side: bool
    threads: int
    estimates_s: Mapping[str, float]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Wishes:
    """What the user fixed; None: the planner chooses."""

    budget_s: float
    images: int | None = None
    test_images: int | None = None
    samples: int | None = None


def rough_rates(cores: int, objects: int) -> Rates:
    """Numbers of a usual CPU core, for a plan before anything was measured."""
    return Rates(
        cores=cores, gpu="", images_per_s=4.0 * cores, cut_per_s=25.0 * cores,
        crops_per_s=35.0 * cores, frames_per_s=9.0 * cores,
        crops_per_image=0.9 * min(objects, 4), start_s=30.0, measured=False,
    )  # fmt: skip


def make_plan(wishes: Wishes, rates: Rates, spent_s: float) -> Plan:
    """Fill the budget. spent_s: what has passed of it. Raises ConfigError when it is too small."""
    test_images = wishes.test_images or TEST_IMAGES
    fixed = _fixed_times(test_images, rates)
    if wishes.samples is None:
        images, train_s = _share_out(wishes, rates, spent_s, sum(fixed.values()))
    else:
        left_s = (1 - MARGIN) * wishes.budget_s - spent_s - sum(fixed.values())
        images = wishes.images or _round_images(
            min(
                max(left_s, 0) * RENDER_SHARE * _image_rate(rates),
                wishes.samples / (LEAST_PASSES * rates.crops_per_image),
            )
        )
        train_s = 0.0
    detector_s = heatnet_s = train_s
    if not rates.side_by_side:
        detector_s, heatnet_s = DETECTOR_SHARE * train_s, (1 - DETECTOR_SHARE) * train_s
    width = choose_width(rates, wishes.samples or rates.crops_per_s * heatnet_s)
    if wishes.samples is not None:
        detector_s = wishes.samples / rates.frames_per_s
        heatnet_s = wishes.samples * _cost(width) / rates.crops_per_s
    estimates = {
        "render-train": images / rates.images_per_s,
        "crops": images / rates.cut_per_s,
        "train-yolo": detector_s + rates.start_s,
        "train-heatnet": heatnet_s + rates.start_s,
        **fixed,
    }
    return Plan(
        images=images,
        test_images=test_images,
        width=width,
        detector_size="m" if rates.gpu else "n",
        yolo_minutes=round(detector_s / 60, 2) if wishes.samples is None else 0.0,
        heatnet_minutes=round(heatnet_s / 60, 2) if wishes.samples is None else 0.0,
        samples=wishes.samples or 0,
        side_by_side=rates.side_by_side,
        threads=max(1, rates.cores // 2) if rates.side_by_side else 0,
        estimates_s={name: round(value, 1) for name, value in estimates.items()},
        reasons=_reasons(wishes, rates, images, width, (detector_s, heatnet_s)),
    )


def make_fixed_plan(images: int, test_images: int | None, samples: int, cores: int) -> Plan:
    """The plan where the user fixed everything: nothing is measured, no time is promised."""
    return Plan(
        images=images,
        test_images=test_images or min(TEST_IMAGES, images),
        width=NARROW,
        detector_size="n",
        yolo_minutes=0.0,
        heatnet_minutes=0.0,
        samples=samples,
        side_by_side=cores >= 2,
        threads=max(1, cores // 2) if cores >= 2 else 0,
        estimates_s={},
        reasons=(
            f"{images} images and {samples} samples per network were asked for; the budget has no "
            "effect and no time is promised.",
        ),
    )


def choose_width(rates: Rates, crops: float) -> int:
    """Channels of HeatNet's first stage: wider where there is time to train it.

    crops: that the narrow network sees in the time it has.
    """
    if rates.gpu:
        return GPU_WIDTH
    return WIDE if crops >= WIDE_FROM_CROPS else NARROW


def _cost(width: int) -> float:
    """Time of a crop, beside the network that was measured."""
    return WIDE_COST if width == WIDE else 1.0


def training_wall_s(plan: Plan) -> float:
    """Seconds that both trainings take together."""
    both = plan.estimates_s.get("train-yolo", 0.0), plan.estimates_s.get("train-heatnet", 0.0)
    return max(both) if plan.side_by_side else sum(both)


def total_s(plan: Plan) -> float:
    """Seconds of all steps."""
    rest = sum(v for k, v in plan.estimates_s.items() if not k.startswith("train-"))
    return rest + training_wall_s(plan)


def adjust_training(plan: Plan, budget_s: float, spent_s: float) -> Plan:
    """The plan with training minutes that end within the budget, now that images are there.

    Rendering may have been slower or quicker than measured. A plan by samples stays as it is.
    """
    if plan.samples:
        return plan
    after_s = sum(plan.estimates_s[name] for name in AFTER_TRAINING)
    starts_s = sum(
        plan.estimates_s[f"train-{network}"] - 60 * minutes
        for network, minutes in (("yolo", plan.yolo_minutes), ("heatnet", plan.heatnet_minutes))
    ) / (2 if plan.side_by_side else 1)
    left_s = (1 - MARGIN) * budget_s - spent_s - after_s - starts_s
    planned_s = training_wall_s(plan) - starts_s
    factor = max(left_s, LEAST_TRAINING_S) / planned_s
    minutes = {"yolo": plan.yolo_minutes * factor, "heatnet": plan.heatnet_minutes * factor}
    changes = {
        f"train-{network}": round(plan.estimates_s[f"train-{network}"]
                                  + 60 * (minutes[network] - before), 1)
        for network, before in (("yolo", plan.yolo_minutes), ("heatnet", plan.heatnet_minutes))
    }  # fmt: skip
    return replace(
        plan,
        yolo_minutes=round(minutes["yolo"], 2),
        heatnet_minutes=round(minutes["heatnet"], 2),
        estimates_s={**plan.estimates_s, **changes},
    )


def remaining_s(plan: Plan, steps: Sequence[Sequence[str]]) -> float:
    """Seconds of these steps and the report; names of a step run side by side."""
    of_steps = (max(plan.estimates_s.get(name, 0.0) for name in names) for names in steps)
    return sum(of_steps) + plan.estimates_s.get("report", 0.0)


def _fixed_times(test_images: int, rates: Rates) -> dict[str, float]:
    """Steps that are needed whatever the budget. Exports and evaluation scale with the start."""
    # inference on a frame and its crops, and what else the pipeline, metrics and overlays take
    frame_s = 0.15 + 2 / rates.crops_per_s + 1 / rates.frames_per_s
    return {
        "render-test": test_images / rates.images_per_s,
        "export-yolo": 20 + rates.start_s,
        "export-heatnet": 20 + 1.5 * rates.start_s,
        "evaluate": EVALUATION_START_S + test_images * frame_s,
        "report": REPORT_S,
    }


def _image_rate(rates: Rates) -> float:
    """Images rendered and cut in a second of both."""
    return 1 / (1 / rates.images_per_s + 1 / rates.cut_per_s)


def _share_out(wishes: Wishes, rates: Rates, spent_s: float, fixed_s: float) -> tuple[int, float]:
    """(training images, seconds of training; of both together where they run in turn)."""
    starts_s = rates.start_s * (1 if rates.side_by_side else 2)
    work_s = (1 - MARGIN) * wishes.budget_s - spent_s - fixed_s - starts_s
    rate = _image_rate(rates)
    if wishes.images is not None:
        images = wishes.images
    else:
        share = min(RENDER_SHARE, _useful_share(rates, rate))
        images = _round_images(max(work_s, 0) * share * rate)
    train_s = work_s - images / rate
    if train_s < LEAST_TRAINING_S:
        needed_s = spent_s + fixed_s + starts_s + images / rate + LEAST_TRAINING_S
        least_min = math.ceil(needed_s / (1 - MARGIN) / 60 + 0.5)
        raise ConfigError(
            f"--budget: {wishes.budget_s / 60:.0f} minutes leave {max(train_s, 0) / 60:.1f} for "
            f"training on this machine, expected at least {LEAST_TRAINING_S / 60:.1f}. Give "
            f"--budget {least_min}m or more (one hour gives a useful model on two cores), or fewer "
            "--images and --test-images."
        )
    return images, train_s


def _useful_share(rates: Rates, image_rate: float) -> float:
    """The share of rendering at which every crop is seen ``LEAST_PASSES`` times."""
    part = 1.0 if rates.side_by_side else 1 - DETECTOR_SHARE
    wanted = part * rates.crops_per_s / (LEAST_PASSES * rates.crops_per_image * image_rate)
    return wanted / (1 + wanted)


def _round_images(images: float) -> int:
    whole = int(images // IMAGES_PER_SCENE) * IMAGES_PER_SCENE
    return min(max(whole, LEAST_IMAGES), MOST_IMAGES)


def _reasons(
    wishes: Wishes, rates: Rates, images: int, width: int, seconds: tuple[float, float]
) -> tuple[str, ...]:
    known = "measured" if rates.measured else "roughly assumed, not measured"
    place = rates.gpu or f"{rates.cores} CPU cores"
    detector_s, heatnet_s = seconds
    crops = heatnet_s * rates.crops_per_s / _cost(width)
    frames = detector_s * rates.frames_per_s
    passes = crops / max(images * rates.crops_per_image, 1)
    how = "side by side" if rates.side_by_side else "one after the other"
    found = [
        f"{known} on {place}: {rates.images_per_s:.1f} images/s rendered, training {how} at "
        f"{rates.crops_per_s:.0f} crops/s (HeatNet) and {rates.frames_per_s:.1f} frames/s "
        "(detector).",
        f"{images} training images"
        + (
            " as asked for"
            if wishes.images
            else f", at most {100 * RENDER_SHARE:.0f} % of the time"
        )
        + f"; each of their crops is seen about {passes:.1f} times.",
        f"HeatNet: preset lite, width {width}"
        + (f" (wider than {NARROW}, as there is time for it)" if width == WIDE else "")
        + f", {heatnet_s / 60:.1f} min, about {crops:,.0f} crops.",
        f"Detector: YOLOv10{'m' if rates.gpu else 'n'}, {detector_s / 60:.1f} min, about "
        f"{frames:,.0f} frames.",
    ]
    return tuple(found)
