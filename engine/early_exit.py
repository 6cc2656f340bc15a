"""``evaluate --early_exit``: calibrate on held-out images, choose a threshold there, measure on the test images."""

from __future__ import annotations

from collections.abc import Iterator

from consts import ACCURACY, PLOT_DIR, TEST, TRAIN, VAL, block_name
from datamodules.feed import Feed
from datamodules.split import at_most
from diagnostics import exits
from engine.evaluation import exit_logits
from engine.trained import Trained
from reports.exits import draw_exits
from utils import UsageError

WITHIN = 0.5  # points of accuracy that may be lost
CALIBRATION_IMAGES = 5000  # at most, where training images must serve
TABLE, EXITS, PLOT = "early_exit.csv", "exits.csv", f"{PLOT_DIR}/early_exit.svg"


def study_exits(run: Trained) -> Iterator[str]:
    """Write ``early_exit.csv``, ``exits.csv`` and ``plots/early_exit.svg``, and say what they show, line by line.

    Raises:
        UsageError: the network has one exit only.
    """
    method, splits = run.method, run.splits
    test = run.feed(splits.test)
    image_1CHW = test.batch(0, 0).x_BCHW[:1]
    flops = exits.exit_flops(method, image_1CHW)
    if len(flops) < 2:
        raise UsageError("--early_exit: this run has one exit only; it needs blocks with classifiers, as --dgl has")
    split = TRAIN if splits.val is None else VAL
    fit_EPN, fit_y_P = exit_logits(method, _calibration_feed(run), list(flops), run.precision)
    temperatures = [exits.fit_temperature(logits_PN, fit_y_P) for logits_PN in fit_EPN]
    fitted_EPN = exits.probabilities(fit_EPN, temperatures)
    test_EPN, test_y_P = exit_logits(method, test, list(flops), run.precision)
    tested_EPN, costs = exits.probabilities(test_EPN, temperatures), list(flops.values())
    limits = exits.thresholds(fitted_EPN)
    chosen = exits.choose([exits.outcome(fitted_EPN, fit_y_P, costs, limit) for limit in limits], WITHIN)
    outcomes = [exits.outcome(tested_EPN, test_y_P, costs, limit) for limit in limits]
    best = next(each for each in outcomes if each.threshold == chosen.threshold)
    run.write_table(
        TABLE,
        ["threshold", "test_accuracy", "flops", *(f"share_{block_name(index)}" for index in flops)],
        ([each.threshold, each.accuracy, each.flops, *each.shares] for each in outcomes),
    )
    alone = [
        (costs[row], 100 * float((each_PN.argmax(1) == test_y_P.cpu()).double().mean()))
        for row, each_PN in enumerate(tested_EPN)
    ]
    prefixes = [exits.greedy_weighted(test_EPN[: row + 1]) for row in range(len(flops))]
    together = [exits.ensemble_accuracy(prefix_EPN, test_y_P) for prefix_EPN in prefixes]
    run.write_table(
        EXITS,
        ["block", "flops", "test_accuracy", "temperature", "greedy_ensemble_test_accuracy"],
        zip(map(block_name, flops), *zip(*alone, strict=True), temperatures, together, strict=True),
    )
    plain = exits.network_flops(method, image_1CHW)
    points = [(each.flops, each.accuracy) for each in outcomes]
    with run.folder.writing(PLOT):
        draw_exits(points, alone, list(flops), (best.flops, best.accuracy), plain, run.folder.path / PLOT)
    yield f"Early exits; confidence calibrated on {len(fit_y_P)} images of the {split} split, measured on {TEST}:"
    if split == TRAIN:
        yield "  (the network was trained on these, so it is too sure of itself; train with --val_size to do better)"
    for row, (index, temperature) in enumerate(zip(flops, temperatures, strict=True)):
        yield (
            f"  {block_name(index)}  {ACCURACY} {alone[row][1]:6.2f}  {costs[row] / 1e6:9.2f} MFLOPs "
            f"({100 * costs[row] / plain:4.0f} % of the network without heads)  temperature {temperature:.2f}"
        )
    yield f"  mean of all exits' probabilities: {ACCURACY} {exits.ensemble_accuracy(tested_EPN, test_y_P):.2f}"
    yield f"  greedy ensemble, logits of exit i weighted by 2^i: {ACCURACY} {together[-1]:.2f}"
    leave = "  ".join(
        f"{block_name(index)} {100 * share:.0f} %" for index, share in zip(flops, best.shares, strict=True)
    )
    when = "no early exit" if best.threshold > 1 else f"confidence {best.threshold:.3f}"
    yield (
        f"  cheapest within {WITHIN} points (chosen on {split}): {when}: {ACCURACY} {best.accuracy:.2f}, "
        f"{best.flops / 1e6:.2f} MFLOPs an image ({100 * best.flops / plain:.0f} %); leaving at {leave}"
    )
    yield f"  written: {', '.join(str(run.folder.path / name) for name in (TABLE, EXITS, PLOT))}"


def _calibration_feed(run: Trained) -> Feed:
    """The validation images, or else some training images as they are; never those of the test."""
    if run.splits.val is not None:
        return run.feed(run.splits.val)
    return run.feed(at_most(run.splits.train, run.splits.spec.num_classes, CALIBRATION_IMAGES))
