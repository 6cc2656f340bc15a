"""Early exits (``evaluate --early_exit``): accuracy against cost when confident images leave at an early block.

Every exit is calibrated by temperature scaling (Guo et al., arXiv 1706.04599) on held-out images, the confidence
threshold is chosen there, and accuracy and cost are measured on the test images. An image leaves at the first exit
whose largest probability reaches the threshold, as in BranchyNet (Teerapittayanon et al., arXiv 1709.01686).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional

from consts import ACCURACY, PLOT_DIR, TEST, TRAIN, VAL, block_name
from datamodules.split import at_most
from engine.evaluation import exit_logits
from engine.trained import Trained
from reports.exits import draw_exits
from studies._exits import ensemble_accuracy, exit_costs, network_cost
from utils import UsageError

WITHIN = 0.5  # points of accuracy that may be lost
CALIBRATION_IMAGES = 5000  # at most, if training images have to be used
MAX_THRESHOLDS = 500
TABLE, EXITS, PLOT = "early_exit.csv", "exits.csv", f"{PLOT_DIR}/early_exit.svg"
_LOG_TEMPERATURES = (-5.0, 5.0)  # bounds of the search; e^5 = 148


class Outcome(NamedTuple):
    """Accuracy and cost of a threshold on a set of images."""

    threshold: float  # confidence at which an image leaves, in [0, 1]; above 1 no image leaves early
    accuracy: float  # in percent
    multiply_adds: float  # mean per image
    shares: tuple[float, ...]  # fraction of the images that leave at each exit, in [0, 1]


class Results(NamedTuple):
    """All numbers of the study; sequences have one entry per exit, and accuracies are in percent on the test images."""

    split: str  # used for calibration
    num_calibrated: int  # images of that split
    exits: Sequence[int]  # block indices
    multiply_adds: Sequence[int]  # of an image that leaves at the exit
    temperatures: Sequence[float]
    accuracies: Sequence[float]  # if all images leave at the exit
    greedy: Sequence[float]  # of the greedy ensemble of the exits up to this one
    ensemble: float  # of the mean probabilities of all exits
    outcomes: Sequence[Outcome]  # by threshold
    chosen: Outcome  # the cheapest of them within `WITHIN` points on the calibration images
    plain: int  # multiply-adds of the network without heads


def study(run: Trained, _: bool = True) -> Iterator[str]:
    """Write ``early_exit.csv``, ``exits.csv`` and ``plots/early_exit.svg``, and yield a summary line by line.

    Raises:
        UsageError: the network has only one exit.
    """
    found = _measure(run)
    names = [block_name(index) for index in found.exits]
    run.write_table(
        TABLE,
        ["threshold", "test_accuracy", "multiply_adds", *(f"share_{name}" for name in names)],
        ([each.threshold, each.accuracy, each.multiply_adds, *each.shares] for each in found.outcomes),
    )
    run.write_table(
        EXITS,
        ["block", "multiply_adds", "test_accuracy", "temperature", "greedy_ensemble_test_accuracy"],
        zip(names, found.multiply_adds, found.accuracies, found.temperatures, found.greedy, strict=True),
    )
    curve = [(each.multiply_adds, each.accuracy) for each in found.outcomes]
    alone = list(zip(found.multiply_adds, found.accuracies, strict=True))
    chosen = (found.chosen.multiply_adds, found.chosen.accuracy)
    with run.folder.writing(PLOT):
        draw_exits(curve, alone, found.exits, chosen, found.plain, run.folder.path / PLOT)
    yield from _lines(found)
    yield f"  written: {', '.join(str(run.folder.path / name) for name in (TABLE, EXITS, PLOT))}"


def _measure(run: Trained) -> Results:
    method, splits, test = run.method, run.splits, run.feed(run.splits.test)
    image_1CHW = test.batch(0, 0).x_BCHW[:1]
    by_exit = exit_costs(method, image_1CHW)
    if len(by_exit) < 2:
        raise UsageError("--early_exit: this run has one exit only; it needs blocks with classifiers, as --dgl has")
    exits, costs = list(by_exit), list(by_exit.values())
    split, images = VAL, splits.val
    if images is None:  # never the test images
        split, images = TRAIN, at_most(splits.train, splits.spec.num_classes, CALIBRATION_IMAGES)
    fit_EPN, fit_y_P = exit_logits(method, run.feed(images), exits, run.precision)
    temperatures = [fit_temperature(logits_PN, fit_y_P) for logits_PN in fit_EPN]
    fitted_EPN = probabilities(fit_EPN, temperatures)
    test_EPN, test_y_P = exit_logits(method, test, exits, run.precision)
    tested_EPN = probabilities(test_EPN, temperatures)
    limits = thresholds(fitted_EPN)
    best = choose([outcome(fitted_EPN, fit_y_P, costs, limit) for limit in limits], WITHIN)
    outcomes = [outcome(tested_EPN, test_y_P, costs, limit) for limit in limits]
    return Results(
        split, len(fit_y_P), exits, costs, temperatures,
        accuracies=[ensemble_accuracy(each_PN[None], test_y_P) for each_PN in tested_EPN],
        greedy=[ensemble_accuracy(greedy_weighted(test_EPN[: end + 1]), test_y_P) for end in range(len(exits))],
        ensemble=ensemble_accuracy(tested_EPN, test_y_P),
        outcomes=outcomes,
        chosen=next(each for each in outcomes if each.threshold == best.threshold),
        plain=network_cost(method, image_1CHW),
    )  # fmt: skip


def _lines(found: Results) -> Iterator[str]:
    split, plain, chosen = found.split, found.plain, found.chosen
    calibration = f"confidence calibrated on {found.num_calibrated} images of the {split} split"
    yield f"Early exits; {calibration}, measured on {TEST}:"
    if split == TRAIN:
        yield "  (the network was trained on these, so it is overconfident on them; train with --val_size to avoid it)"
    rows = zip(found.exits, found.accuracies, found.multiply_adds, found.temperatures, strict=True)
    for index, accuracy, cost, temperature in rows:
        yield (
            f"  {block_name(index)}  {ACCURACY} {accuracy:6.2f}  {cost / 1e6:9.2f} M multiply-adds "
            f"({100 * cost / plain:4.0f} % of the network without heads)  temperature {temperature:.2f}"
        )
    yield f"  mean of all exits' probabilities: {ACCURACY} {found.ensemble:.2f}"
    yield f"  greedy ensemble, logits of exit i weighted by 2^i: {ACCURACY} {found.greedy[-1]:.2f}"
    leave = "  ".join(
        f"{block_name(index)} {100 * share:.0f} %" for index, share in zip(found.exits, chosen.shares, strict=True)
    )
    when = "no early exit" if chosen.threshold > 1 else f"confidence {chosen.threshold:.3f}"
    yield (
        f"  cheapest within {WITHIN} points (chosen on {split}): {when}: {ACCURACY} {chosen.accuracy:.2f}, "
        f"{chosen.multiply_adds / 1e6:.2f} M multiply-adds an image ({100 * chosen.multiply_adds / plain:.0f} %); "
        f"leaving at {leave}"
    )


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


def outcome(probabilities_EPN: Tensor, y_P: Tensor, costs_E: Sequence[float], threshold: float) -> Outcome:
    """Accuracy and cost if every image leaves at the first exit whose confidence reaches ``threshold``.

    All remaining images leave at the last exit. ``costs_E`` is the cost of an image that leaves at each exit.
    """
    confidences_EP, guesses_EP = probabilities_EPN.max(2)
    sure_EP = confidences_EP >= threshold
    sure_EP[-1] = True
    exits_P = sure_EP.int().argmax(0)  # the first maximum
    right_P = guesses_EP.gather(0, exits_P[None])[0] == y_P.cpu()
    shares_E = torch.bincount(exits_P, minlength=len(costs_E)).double() / len(exits_P)
    cost = float(shares_E @ torch.tensor(costs_E, dtype=torch.float64))
    return Outcome(threshold, 100 * float(right_P.double().mean()), cost, tuple(shares_E.tolist()))


def thresholds(probabilities_EPN: Tensor) -> list[float]:
    """All thresholds that change a decision, evenly thinned to `MAX_THRESHOLDS`, between 0 and 2 (no early exit)."""
    confidences = probabilities_EPN[:-1].amax(2).flatten().unique()
    if len(confidences) > MAX_THRESHOLDS:
        confidences = confidences[torch.linspace(0, len(confidences) - 1, MAX_THRESHOLDS).long()]
    return [0.0, *confidences.tolist(), 2.0]


def choose(outcomes: Sequence[Outcome], within: float) -> Outcome:
    """The cheapest outcome with an accuracy at most ``within`` points below the last one's (no early exit)."""
    return min(
        (each for each in outcomes if each.accuracy >= outcomes[-1].accuracy - within), key=lambda o: o.multiply_adds
    )


def greedy_weighted(logits_EPN: Tensor) -> Tensor:
    """The exits' logits times 1, 2, 4, ... over the sum of these weights, in float64 on the CPU.

    Their sum is the ensemble of Belilovsky et al. 2019 (arXiv 1812.11446): each exit has the total weight of all
    exits before it plus that of the first.
    """
    weights_E = 2.0 ** torch.arange(len(logits_EPN), dtype=torch.float64)
    return logits_EPN.double().cpu() * (weights_E / weights_E.sum())[:, None, None]
