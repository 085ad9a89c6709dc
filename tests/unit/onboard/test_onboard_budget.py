from dataclasses import replace

import pytest

from heatnet_ros.errors import ConfigError
from heatnet_ros.onboard.budget import (
    AFTER_TRAINING,
    GPU_WIDTH,
    LEAST_IMAGES,
    LEAST_TRAINING_S,
    MARGIN,
    NARROW,
    WIDE,
    WIDE_COST,
    WIDE_FROM_CROPS,
    Rates,
    Wishes,
    adjust_training,
    choose_width,
    make_fixed_plan,
    make_plan,
    remaining_s,
    total_s,
    training_wall_s,
)

RATES = Rates(
    cores=2, gpu="", images_per_s=10.0, cut_per_s=40.0, crops_per_s=60.0, frames_per_s=20.0,
    crops_per_image=2.0, start_s=30.0,
)  # fmt: skip
ALONE = replace(RATES, cores=1)
HOUR = 3600.0


@pytest.mark.parametrize("rates", [RATES, ALONE, replace(RATES, gpu="Fast GPU", crops_per_s=900)])
@pytest.mark.parametrize("spent_s", [0.0, 300.0])
@pytest.mark.parametrize("budget_s", [1200.0, HOUR, 3 * HOUR])
def test_a_plan_fills_the_budget_but_for_the_margin(rates, spent_s, budget_s):
    plan = make_plan(Wishes(budget_s), rates, spent_s)
    assert spent_s + total_s(plan) == pytest.approx((1 - MARGIN) * budget_s, abs=1.0)


def test_trainings_share_the_time_only_where_they_run_in_turn():
    both, alone = (make_plan(Wishes(HOUR), rates, 0.0) for rates in (RATES, ALONE))
    assert both.side_by_side and both.threads == 1
    assert both.yolo_minutes == both.heatnet_minutes
    assert training_wall_s(both) == pytest.approx(60 * both.yolo_minutes + 30, abs=1)
    assert not alone.side_by_side and alone.threads == 0
    assert alone.yolo_minutes / alone.heatnet_minutes == pytest.approx(0.4 / 0.6, abs=0.01)
    wall_s = 60 * (alone.yolo_minutes + alone.heatnet_minutes) + 60
    assert training_wall_s(alone) == pytest.approx(wall_s, abs=1.5)


def test_asked_for_numbers_are_kept_and_the_rest_of_the_time_is_for_training():
    free = make_plan(Wishes(HOUR), RATES, 0.0)
    fixed = make_plan(Wishes(HOUR, images=300, test_images=40), RATES, 0.0)
    assert (fixed.images, fixed.test_images) == (300, 40)
    # 300 images: 30 s rendered, 7.5 s cut
    assert fixed.estimates_s["render-train"] + fixed.estimates_s["crops"] == 37.5
    assert fixed.heatnet_minutes > free.heatnet_minutes
    assert total_s(fixed) == pytest.approx((1 - MARGIN) * HOUR, abs=1.0)


def test_samples_end_a_training_instead_of_minutes():
    plan = make_plan(Wishes(HOUR, samples=6000), RATES, 0.0)
    assert (plan.samples, plan.yolo_minutes, plan.heatnet_minutes) == (6000, 0.0, 0.0)
    assert plan.estimates_s["train-heatnet"] == pytest.approx(6000 / 60 + 30)
    assert plan.estimates_s["train-yolo"] == pytest.approx(6000 / 20 + 30)
    # 6000 crops, each seen three times, two in an image
    assert plan.images == 1000
    assert adjust_training(plan, HOUR, 3000.0) is plan


def test_slow_training_gets_few_images():
    slow = make_plan(Wishes(HOUR), replace(RATES, crops_per_s=2.0), 0.0)
    assert LEAST_IMAGES <= slow.images < make_plan(Wishes(HOUR), RATES, 0.0).images
    crops = 60 * slow.heatnet_minutes * 2.0
    assert crops / (slow.images * 2.0) == pytest.approx(3.0, rel=0.1)


def test_a_budget_without_time_to_train_names_one_that_is_enough():
    with pytest.raises(ConfigError, match=r"leave .* expected at least") as caught:
        make_plan(Wishes(480.0), RATES, 300.0)
    least_min = int(str(caught.value).partition("Give --budget ")[2].partition("m or")[0])
    plan = make_plan(Wishes(60.0 * least_min), RATES, 300.0)
    assert 60 * plan.heatnet_minutes >= LEAST_TRAINING_S - 1
    with pytest.raises(ConfigError):
        make_plan(Wishes(60.0 * (least_min - 2)), RATES, 300.0)


def test_width_grows_with_the_crops_there_is_time_for():
    assert choose_width(RATES, WIDE_FROM_CROPS - 1) == NARROW
    assert choose_width(RATES, WIDE_FROM_CROPS) == WIDE
    assert choose_width(replace(RATES, gpu="Fast GPU"), 1000) == GPU_WIDTH
    plan = make_plan(Wishes(HOUR, samples=WIDE_FROM_CROPS), RATES, 0.0)
    assert plan.width == WIDE
    seconds = WIDE_FROM_CROPS * WIDE_COST / RATES.crops_per_s
    assert plan.estimates_s["train-heatnet"] == pytest.approx(seconds + 30, abs=1)
    assert make_plan(Wishes(HOUR), RATES, 0.0).width == WIDE
    assert make_plan(Wishes(HOUR), replace(RATES, crops_per_s=30.0), 0.0).width == NARROW


@pytest.mark.parametrize("rates", [RATES, ALONE])
@pytest.mark.parametrize("late_s", [-120.0, 0.0, 240.0])
def test_training_is_cut_or_prolonged_by_what_rendering_took(rates, late_s):
    plan = make_plan(Wishes(HOUR), rates, 60.0)
    before = sum(plan.estimates_s[name] for name in ("render-train", "render-test", "crops"))
    spent_s = 60.0 + before + late_s
    adjusted = adjust_training(plan, HOUR, spent_s)
    after = sum(adjusted.estimates_s[name] for name in AFTER_TRAINING)
    end_s = spent_s + training_wall_s(adjusted) + after
    assert end_s == pytest.approx((1 - MARGIN) * HOUR, abs=2.0)
    assert training_wall_s(plan) - training_wall_s(adjusted) == pytest.approx(late_s, abs=2.0)


def test_training_is_never_shorter_than_what_is_useful():
    plan = make_plan(Wishes(HOUR), RATES, 60.0)
    assert 60 * adjust_training(plan, HOUR, HOUR).heatnet_minutes == pytest.approx(
        LEAST_TRAINING_S, abs=1
    )


def test_a_fixed_plan_promises_no_time():
    plan = make_fixed_plan(130, None, 640, cores=2)
    assert (plan.images, plan.test_images, plan.samples, plan.estimates_s) == (130, 130, 640, {})


def test_remaining_time_counts_side_by_side_steps_once():
    plan = make_plan(Wishes(HOUR), RATES, 0.0)
    steps = [("train-yolo", "train-heatnet"), ("export-yolo",)]
    expected = training_wall_s(plan) + plan.estimates_s["export-yolo"] + plan.estimates_s["report"]
    assert remaining_s(plan, steps) == pytest.approx(expected)
