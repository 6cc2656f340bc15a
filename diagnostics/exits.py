"""Early exits: calibrated confidence, accuracy and cost of leaving a network at the first block that is sure.

The policy is BranchyNet's (Teerapittayanon et al., arXiv 1709.01686) with the largest probability as confidence; the
temperatures are those of Guo et al. (arXiv 1706.04599).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from diagnostics.costs import measure_costs
from methods._base import Method

MAX_THRESHOLDS = 500
_LOG_TEMPERATURES = (-5.0, 5.0)  # bounds of the search; e^5 = 148


class Outcome(NamedTuple):
    """What a threshold gives on a set of images.

    Attributes:
        threshold: confidence at which an image leaves, in [0, 1]; above 1 none leaves early.
        accuracy: in percent.
        flops: mean per image.
        shares: of the images that leave at each exit, in [0, 1].
    """

    threshold: float
    accuracy: float
    flops: float
    shares: tuple[float, ...]


def fit_temperature(logits_PN: Tensor, y_P: Tensor) -> float:
    """The temperature T that minimises the cross-entropy of ``softmax(logits / T)``; it is convex in 1 / T."""
    logits_PN = logits_PN.double().cpu()

    def loss(log_temperature: float) -> float:
        return float(functional.cross_entropy(logits_PN / math.exp(log_temperature), y_P.cpu()))

    return math.exp(minimize_scalar(loss, bounds=_LOG_TEMPERATURES, method="bounded").x)


def probabilities(logits_EPN: Tensor, temperatures: Sequence[float]) -> Tensor:
    """Calibrated probabilities (E, P, N) of every exit, in float64 on the CPU."""
    logits_EPN = logits_EPN.double().cpu()
    return (logits_EPN / torch.tensor(temperatures, dtype=torch.float64)[:, None, None]).softmax(2)


def outcome(probabilities_EPN: Tensor, y_P: Tensor, flops_E: Sequence[float], threshold: float) -> Outcome:
    """Accuracy and cost when every image leaves at the first exit whose confidence reaches ``threshold``.

    Who reaches the last exit leaves there. ``flops_E`` is what an image has cost when it leaves at an exit.
    """
    confidences_EP, guesses_EP = probabilities_EPN.max(2)
    sure_EP = confidences_EP >= threshold
    sure_EP[-1] = True
    exits_P = sure_EP.int().argmax(0)  # the first maximum
    right_P = guesses_EP.gather(0, exits_P[None])[0] == y_P.cpu()
    shares_E = torch.bincount(exits_P, minlength=len(flops_E)).double() / len(exits_P)
    cost = float(shares_E @ torch.tensor(flops_E, dtype=torch.float64))
    return Outcome(threshold, 100 * float(right_P.double().mean()), cost, tuple(shares_E.tolist()))


def thresholds(probabilities_EPN: Tensor) -> list[float]:
    """Every confidence at which something changes, or as many of them, evenly; from 0 to none leaving early."""
    confidences = probabilities_EPN[:-1].amax(2).flatten().unique()
    if len(confidences) > MAX_THRESHOLDS:
        confidences = confidences[torch.linspace(0, len(confidences) - 1, MAX_THRESHOLDS).long()]
    return [0.0, *confidences.tolist(), 2.0]


def choose(outcomes: Sequence[Outcome], within: float) -> Outcome:
    """The cheapest outcome whose accuracy lies at most ``within`` points below that of the last one (no early exit)."""
    return min((each for each in outcomes if each.accuracy >= outcomes[-1].accuracy - within), key=lambda o: o.flops)


def ensemble_accuracy(outputs_EPN: Tensor, y_P: Tensor) -> float:
    """Accuracy in percent of the mean of what the exits say, be it probabilities or logits; of one, its own."""
    return 100 * float((outputs_EPN.mean(0).argmax(1) == y_P.to(outputs_EPN.device)).double().mean())


def greedy_weighted(logits_EPN: Tensor) -> Tensor:
    """The exits' logits times 1, 2, 4, ... over the sum of these, in float64 on the CPU.

    Added up they are the ensemble of Belilovsky et al. 2019 (arXiv 1812.11446): an exit weighs as much as all before
    it, and the first once more.
    """
    weights_E = 2.0 ** torch.arange(len(logits_EPN), dtype=torch.float64)
    return logits_EPN.double().cpu() * (weights_E / weights_E.sum())[:, None, None]


def exit_flops(method: Method, x_1CHW: Tensor) -> dict[int, int]:
    """By exit, the floating point operations behind an image that leaves there: blocks up to it, and heads asked."""
    costs = measure_costs(method, x_1CHW)
    return {index: costs.of(costs.exits[: place + 1]).flops for place, index in enumerate(costs.exits)}


def network_flops(method: Method, x_1CHW: Tensor) -> int:
    """Floating point operations of the network without heads, counted likewise."""
    method.eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        method(x_1CHW)
    method.train()
    return counter.get_total_flops()
