"""Schedules against torch's own, step by step."""

import pytest

torch = pytest.importorskip("torch", reason="torch is in the train extra (make test-train)")

from heatnet_ros.errors import ConfigError  # noqa: E402
from heatnet_ros.training.run_config import RunConfig  # noqa: E402
from heatnet_ros.training.schedule import learning_rate_at  # noqa: E402

pytestmark = pytest.mark.train
STEPS = 200


def rates_of(make) -> list[float]:
    """Learning rates of a scheduler of torch, before each of its steps."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=5e-4)
    scheduler, rates = make(optimizer), []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < STEPS:
            scheduler.step()
    return rates


@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_onecycle_is_torchs(strategy):
    warmup, start_div, final_div = 0.1, 10.0, 1e4
    wanted = rates_of(
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 5e-4, STEPS, pct_start=warmup, anneal_strategy=strategy,
            div_factor=start_div, final_div_factor=final_div,
        )
    )  # fmt: skip
    config = RunConfig(
        schedule="onecycle" if strategy == "cos" else "onecycle_linear", learning_rate=5e-4,
        warmup=warmup, start_div=start_div, final_div=final_div,
    )  # fmt: skip
    top = warmup * STEPS - 1  # the step at which torch's rate is highest
    for step, rate in enumerate(wanted):
        rising = warmup * step / top
        progress = (
            rising if step <= top else warmup + (1 - warmup) * (step - top) / (STEPS - 1 - top)
        )
        assert learning_rate_at(progress, config) == pytest.approx(rate, rel=1e-9)


def test_polynomial_is_torchs():
    wanted = rates_of(
        lambda optimizer: torch.optim.lr_scheduler.PolynomialLR(optimizer, STEPS, power=2.0)
    )
    config = RunConfig(schedule="polynomial", learning_rate=5e-4)
    for step, rate in enumerate(wanted):
        assert learning_rate_at(step / STEPS, config) == pytest.approx(rate, rel=1e-6)
    assert learning_rate_at(1.0, config) == 0.0


def test_cosine_is_torchs_after_its_warm_up():
    wanted = rates_of(
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    )
    config = RunConfig(schedule="cosine", learning_rate=5e-4, warmup=0.2)
    for step, rate in enumerate(wanted):
        progress = 0.2 + 0.8 * step / STEPS
        assert learning_rate_at(progress, config) == pytest.approx(rate, rel=1e-6)
    assert learning_rate_at(0.0, config) == pytest.approx(0.05 * 5e-4)
    assert learning_rate_at(0.1, config) == pytest.approx(0.525 * 5e-4)


def test_none_is_constant_and_progress_is_clipped():
    config = RunConfig(schedule="none", learning_rate=1e-4)
    assert {learning_rate_at(p, config) for p in (-1.0, 0.0, 0.3, 1.0, 2.0)} == {1e-4}
    assert learning_rate_at(1.5, RunConfig(schedule="polynomial")) == 0.0
    with pytest.raises(ConfigError, match="expected one of none, onecycle"):
        learning_rate_at(0.5, RunConfig(schedule="step"))
