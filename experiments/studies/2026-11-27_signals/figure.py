"""Accuracy and angle of every rule, sorted by accuracy: ``python .../figure.py STUDY figure.svg``."""

from __future__ import annotations

import csv
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from reports.canvas import INK, MARKERS, PALETTE, canvas, render, write_bytes

Values = dict[str, list[float]]


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a table."""
    with path.open(newline="") as stream:
        return [*csv.DictReader(stream)]


def accuracies(rows: Iterable[dict[str, str]], model: str) -> Values:
    """Test accuracy (%) after the last epoch by rule, of all seeds."""
    found: Values = {}
    for row in rows:
        if row["model"] == model:
            found.setdefault(Path(row["config"]).stem, []).append(float(row["final_test_accuracy"]))
    return found


def cosines(rows: list[dict[str, str]], model: str, block: int) -> Values:
    """Cosine of a block's gradient with that of back-propagation after the last epoch, by rule, of all seeds."""
    mine = [row for row in rows if row["model"] == model and int(row["block"]) == block]
    last = max((int(row["epoch"]) for row in mine), default=0)
    found: Values = {}
    for row in mine:
        if int(row["epoch"]) == last:
            found.setdefault(row["rule"], []).append(float(row["alignment"]))
    return found


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def draw(study: Path, path: Path) -> None:
    """On the left accuracy on each network, on the right the blocks' cosines on the first of them."""
    results, angles = read(study / "results.csv"), read(study / "angles.csv")
    models = list(dict.fromkeys(row["model"] for row in results))
    first = accuracies(results, models[0])
    rules = sorted(first, key=lambda rule: statistics.mean(first[rule]))
    with canvas(10.5, 0.26 * len(rules) + 1) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        for place, model in enumerate(models):
            values = accuracies(results, model)
            shown = [(row, *spread(values[rule])) for row, rule in enumerate(rules) if rule in values]
            style = {"color": (INK, PALETTE[1], PALETTE[2])[place], "marker": MARKERS[place], "linestyle": "none"}
            at, means, deviations = zip(*shown, strict=True)
            left.errorbar(means, at, xerr=deviations, label=model, **style)
        for block in range(3):
            values = cosines(angles, models[0], block)
            shown = [(row, *spread(values[rule])) for row, rule in enumerate(rules) if rule in values]
            at, means, deviations = zip(*shown, strict=True)
            style = {"color": PALETTE[block], "marker": MARKERS[block], "linestyle": "none"}
            right.errorbar(means, at, xerr=deviations, label=f"block {block}", **style)
        left.set(title="test accuracy (%)", yticks=range(len(rules)), yticklabels=rules)
        right.set(title=f"cosine of its gradient with back-propagation's, {models[0]}")
        right.axvline(0, color=INK, linewidth=0.8)
        left.legend(loc="lower right")
        right.legend(loc="lower right")
        write_bytes(path, render(figure, path.suffix[1:]))


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
