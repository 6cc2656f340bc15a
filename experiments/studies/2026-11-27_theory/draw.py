"""The two figures of this study: ``python .../figure.py results.csv rules.svg layers.svg``."""

from __future__ import annotations

import csv
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from reports.canvas import INK, MARKERS, PALETTE, canvas, render, write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = Sequence[Mapping[str, str]]
RULES = {"bp": "back-propagation", "dgl": "dgl", "sequential": "dgl --sequential", "dfa": "dfa", "linear": "linear"}
COLOURS = dict(zip(RULES, (INK, *PALETTE[:3], PALETTE[4]), strict=True))
SHAPES = dict(zip(RULES, MARKERS, strict=False))
LABEL = "test accuracy (%)"


def accuracies(rows: Rows, experiment: str, x: str, rule: str) -> list[float]:
    """Of all seeds."""
    wanted = (experiment, x, rule)
    return [float(row["test_accuracy"]) for row in rows if (row["experiment"], row["x"], row["rule"]) == wanted]


def spread(found: Sequence[float]) -> float:
    """Standard deviation over seeds."""
    return statistics.stdev(found) if len(found) > 1 else 0.0


def curves(axes: Axes, rows: Rows, experiment: str, names: Sequence[str], chance: float, line: str = "-") -> None:
    """Accuracy of every rule at ``names``, values of the setting that varies: mean, standard deviation, seeds."""
    for place, (rule, label) in enumerate(RULES.items()):
        found = [accuracies(rows, experiment, name, rule) for name in names]
        known = [index for index, each in enumerate(found) if each]
        if not known:
            continue
        at = [index + 0.09 * (place - 2) for index in known]
        style: dict[str, Any] = {"color": COLOURS[rule], "marker": SHAPES[rule], "label": label}
        means, deviations = [statistics.mean(found[i]) for i in known], [spread(found[i]) for i in known]
        axes.errorbar(at, means, deviations, capsize=2, linewidth=1, linestyle=line, **style)
        for x, index in zip(at, known, strict=True):
            axes.plot([x] * len(found[index]), found[index], ".", color=COLOURS[rule], alpha=0.4, markersize=3)
    axes.axhline(chance, color=INK, linewidth=0.8, linestyle=":")
    axes.set(xticks=range(len(names)), xticklabels=names, ylim=(0, 103), xlim=(-0.4, len(names) - 0.6))


def layers(axes: Axes, rows: Rows, experiment: str, x: str, title: str) -> None:
    """Accuracy of each block's own classifier, of rules that train one; the others' at the end as lines."""
    count = 0
    for rule in ("dgl", "sequential"):
        runs = [row for row in rows if (row["experiment"], row["x"], row["rule"]) == (experiment, x, rule)]
        of_runs = ([float(word) for word in row["block_test_accuracy"].split()] for row in runs)
        by_block = list(zip(*of_runs, strict=True))
        means, deviations = [statistics.mean(each) for each in by_block], [spread(each) for each in by_block]
        style: dict[str, Any] = {"color": COLOURS[rule], "marker": SHAPES[rule], "label": RULES[rule]}
        axes.errorbar(range(len(means)), means, deviations, capsize=2, **style)
        count = len(means)
    for rule, line in (("bp", "-"), ("dfa", "--"), ("linear", ":")):
        mean = statistics.mean(accuracies(rows, experiment, x, rule))
        axes.axhline(mean, color=COLOURS[rule], linestyle=line, linewidth=1.2, label=RULES[rule])
    axes.set(title=title, xlabel="block", xticks=range(count), ylim=(0, 103))


def draw(table: Path, rules_path: Path, layers_path: Path) -> None:
    """Both figures."""
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    with canvas(10.5, 3.4) as figure:
        parity, xor, hierarchy = figure.subplots(1, 3)
        inputs = ("uniform", "biased", "mixture")
        curves(parity, rows, "parity", inputs, 50, line="none")
        parity.set(title="parity of 5 of 30 bits, 4,000 images", ylabel=LABEL, xlabel="inputs (--parity_inputs)")
        curves(xor, rows, "xor", ("0", "0.3", "0.4", "0.45"), 50)
        xor.set(title="XOR tree of 16 bits", xlabel="--local_correlation")
        curves(hierarchy, rows, "random_hierarchy", ("1000", "2000", "4000"), 100 / 8)
        hierarchy.set(title="random hierarchy, v = 8, m = 4, L = 3", xlabel="training images")
        figure.legend(*hierarchy.get_legend_handles_labels(), loc="outside lower center", ncols=5)
        write_bytes(rules_path, render(figure, "svg"))
    with canvas(10.5, 3.4) as figure:
        digits, circuit, hierarchy = figure.subplots(1, 3)
        layers(digits, rows, "digits", "3 levels", "hierarchical digits, 2,000 images")
        digits.set(ylabel=LABEL)
        layers(circuit, rows, "and_or", "uniform pairs", "AND/OR tree of 64 bits, 6,000 images")
        layers(hierarchy, rows, "random_hierarchy", "4000", "random hierarchy, 4,000 images")
        figure.legend(*digits.get_legend_handles_labels(), loc="outside lower center", ncols=5)
        write_bytes(layers_path, render(figure, "svg"))


if __name__ == "__main__":
    draw(*(Path(word) for word in sys.argv[1:]))
