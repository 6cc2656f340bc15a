"""Learning-rate formulas against torch's schedulers."""

from __future__ import annotations

import pytest
import torch

from engine.loop.schedule import factor, learning_rate
from schemas import OptimArgs

STEPS = 40


def torch_rates(build) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = build(optimizer)
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def ours(**settings: object) -> list[float]:
    args = OptimArgs(epochs=4, learning_rate=1.0, **settings)
    return [factor(args, step, STEPS) for step in range(STEPS)]


@pytest.mark.parametrize("warmup", [0.0, 1.0, 2.5])
def test_one_cycle_is_torchs(warmup: float) -> None:
    fraction = warmup / 4 or 0.3
    expected = torch_rates(
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 1.0, STEPS, pct_start=fraction, cycle_momentum=False
        )
    )
    assert ours(lr_schedule="one_cycle", warmup_epochs=warmup) == pytest.approx(expected, rel=1e-9)


def test_one_cycle_with_a_warmup_of_one_step_begins_at_the_peak() -> None:
    rates = ours(lr_schedule="one_cycle", warmup_epochs=0.1)
    assert rates[0] == 1 and rates == sorted(rates, reverse=True)


def test_cosine_is_torchs() -> None:
    expected = torch_rates(lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS))
    assert ours(lr_schedule="cosine") == pytest.approx(expected, rel=1e-9)


def test_multistep_is_torchs() -> None:
    expected = torch_rates(lambda optimizer: torch.optim.lr_scheduler.MultiStepLR(optimizer, [10, 30], 0.2))
    assert ours(lr_schedule="multistep", lr_milestones=(0.25, 0.75), lr_gamma=0.2) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "multistep"])
def test_warmup_rises_to_the_peak_and_no_further(schedule: str) -> None:
    rates = ours(lr_schedule=schedule, warmup_epochs=1.0)
    rising = rates[:10]
    assert rising == sorted(rising)
    assert 0 < rising[0] < 0.2
    assert max(rates) == pytest.approx(1.0)
    assert rates[10] == pytest.approx(1.0)


def test_constant_is_constant() -> None:
    assert set(ours(lr_schedule="constant")) == {1.0}


def test_the_rate_is_one_that_its_type_holds() -> None:
    args = OptimArgs(epochs=4, learning_rate=0.1)
    for step in range(STEPS):
        exact = 0.1 * factor(args, step, STEPS)
        assert learning_rate(args, step, STEPS, torch.float64) == exact
        rounded = learning_rate(args, step, STEPS, torch.float32)
        assert rounded == pytest.approx(exact, rel=1e-7)
        assert torch.tensor(rounded, dtype=torch.float32).item() == rounded
