"""Leaving early: calibration, policy and cost against answers known by other ways."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from studies._exits import ensemble_accuracy, exit_costs, network_cost
from studies.early_exit import choose, fit_temperature, greedy_weighted, outcome, thresholds
from tests.conftest import build, make_method

# Two exits, four images of class 0; confidences of the first 0.9, 0.6, 0.8, 0.7, of which the second and third guess 1.
FIRST = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]], dtype=torch.float64)
LAST = torch.tensor([[0.8, 0.2], [0.9, 0.1], [0.6, 0.4], [0.3, 0.7]], dtype=torch.float64)
BOTH, LABELS, COSTS = torch.stack([FIRST, LAST]), torch.zeros(4, dtype=torch.long), (10.0, 30.0)


def test_the_temperature_undoes_a_scale_of_the_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    logits_PN = torch.randn(20000, 4, generator=generator, dtype=torch.float64) * 2
    y_P = torch.multinomial(logits_PN.softmax(1), 1, generator=generator)[:, 0]  # labels as probable as they say
    assert fit_temperature(logits_PN, y_P) == pytest.approx(1, abs=0.05)
    assert fit_temperature(3 * logits_PN, y_P) == pytest.approx(3 * fit_temperature(logits_PN, y_P), rel=1e-3)


def test_no_neighbouring_temperature_is_better() -> None:
    generator = torch.Generator().manual_seed(1)
    logits_PN, y_P = torch.randn(200, 3, generator=generator).double(), torch.arange(200) % 3
    logits_PN[torch.arange(200), y_P] += 1
    best = fit_temperature(logits_PN, y_P)
    losses = [float(functional.cross_entropy(logits_PN / (best * factor), y_P)) for factor in (0.98, 1, 1.02)]
    assert losses[1] == min(losses)


@pytest.mark.parametrize(
    ("threshold", "accuracy", "shares"),
    [(0.0, 50, (1, 0)), (0.65, 75, (0.75, 0.25)), (0.85, 75, (0.25, 0.75)), (2.0, 75, (0, 1))],
)
def test_an_image_leaves_at_the_first_exit_that_is_sure(threshold: float, accuracy: float, shares: tuple) -> None:
    found = outcome(BOTH, LABELS, COSTS, threshold)
    assert (found.accuracy, found.shares) == (accuracy, shares)
    assert found.multiply_adds == pytest.approx(10 * shares[0] + 30 * shares[1])


def test_the_thresholds_are_all_at_which_something_changes() -> None:
    assert thresholds(BOTH) == pytest.approx([0, 0.6, 0.7, 0.8, 0.9, 2])


def test_the_cheapest_that_is_good_enough_is_chosen() -> None:
    outcomes = [outcome(BOTH, LABELS, COSTS, limit) for limit in thresholds(BOTH)]
    assert choose(outcomes, 0.5).threshold == pytest.approx(0.7)  # 75 % as without early exit, at 15 instead of 30
    assert choose(outcomes, 30).threshold == 0


def test_the_mean_of_probabilities_votes() -> None:
    assert ensemble_accuracy(BOTH[:, :3], LABELS[:3]) == pytest.approx(200 / 3)  # 0.85, 0.65 and 0.4 for class 0


def test_later_exits_weigh_twice_as_much_in_the_greedy_ensemble() -> None:
    weighted_EPN = greedy_weighted(torch.tensor([[[7.0, 0.0]], [[0.0, 7.0]], [[7.0, 7.0]]]))
    assert weighted_EPN.flatten().tolist() == pytest.approx([1, 0, 0, 2, 4, 4])
    assert greedy_weighted(BOTH[:1]).equal(BOTH[:1])
    # (0.8, 0.2) + 2 (0.3, 0.7) is for class 1, while the plain mean is for class 0.
    two_EPN = torch.stack([LAST[:1], LAST[3:]])
    assert ensemble_accuracy(two_EPN, LABELS[:1]) == 100
    assert ensemble_accuracy(greedy_weighted(two_EPN), LABELS[:1]) == 0


def test_costs_are_those_of_the_formula() -> None:
    method = make_method("dgl").float()
    costs, image = exit_costs(method, torch.zeros(1, 3, 8, 8)), torch.zeros(1, 3, 8, 8)
    convolutions = [64 * 4 * 27, 4 * 6 * 36, 4 * 5 * 54]  # positions * outputs * inputs of one
    heads = [sum(m.in_features * m.out_features for m in method.head(i).modules() if hasattr(m, "in_features"))
             for i in range(3)]  # fmt: skip
    parts = [one + other for one, other in zip(convolutions, heads, strict=True)]
    assert costs == {0: parts[0], 1: sum(parts[:2]), 2: sum(parts)}
    assert network_cost(method, image) == sum(convolutions) + heads[2]
    assert method.training


def test_back_propagation_has_one_exit() -> None:
    method = make_method("bp", build("VGG8b"), size=32).float()
    image = torch.zeros(1, 3, 32, 32)
    assert exit_costs(method, image) == {5: network_cost(method, image)}
