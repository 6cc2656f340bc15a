"""Accuracy and cosine of every rule, sorted by accuracy: ``python .../by_rule.py STUDY figure.svg``.

Prints the README's tables too, one for each network and data set.
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[3]))

from reports.canvas import INK, MARKERS, PALETTE, canvas, render, write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Values = dict[str, list[float]]


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a table."""
    with path.open(newline="") as stream:
        return [*csv.DictReader(stream)]


def by_rule(rows: Iterable[dict[str, str]], key: str) -> Values:
    """A column's values of all seeds, by rule."""
    found: Values = {}
    for row in rows:
        found.setdefault(Path(row["config"]).stem, []).append(float(row[key]))
    return found


def cosines(rows: list[dict[str, str]], runs: set[str], block: int) -> Values:
    """Cosine of a block's gradient with that of back-propagation after the last epoch, by rule, of all seeds."""
    mine = [row for row in rows if row["run"] in runs and int(row["block"]) == block]
    last = max((int(row["epoch"]) for row in mine), default=0)
    found: Values = {}
    for row in mine:
        if int(row["epoch"]) == last:
            found.setdefault(row["rule"], []).append(float(row["alignment"]))
    return found


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def places(results: list[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """The rows of every network and data set, by its name in the figure."""
    found: dict[str, list[dict[str, str]]] = {}
    for row in results:
        data = json.loads(row["settings"]).get("data_dir") if row["dataset"] == "arrays" else row["dataset"]
        name = Path(str(data)).stem.replace("folder", "cifar10")
        found.setdefault(f"{row['model']}, {name}", []).append(row)
    return found


def table(rows: list[dict[str, str]], angles: list[dict[str, str]]) -> str:
    """A line for every rule, the most accurate first; time and memory are over back-propagation's."""
    accuracy, cpu, memory = (by_rule(rows, key) for key in ("final_test_accuracy", "train_cpu_s", "peak_memory_bytes"))
    rate = {Path(row["config"]).stem: json.loads(row["settings"])["learning_rate"] for row in rows}
    reference = {name: statistics.mean(values["bp"]) for name, values in (("cpu", cpu), ("memory", memory))}
    middle = statistics.mean(accuracy["bp"])
    blocks = [cosines(angles, {row["run"] for row in rows}, block) for block in range(3)]
    lines = [
        "| rule | learning rate | test accuracy (%) | to bp | cosine, block 0 | 1 | 2 | CPU time | memory | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for rule in sorted(accuracy, key=lambda rule: -statistics.mean(accuracy[rule])):
        mean, deviation = spread(accuracy[rule])
        seeds = len(accuracy[rule])
        shown = (f"{statistics.mean(block[rule]):.2f}" if rule in block else "" for block in blocks)
        error = f" ± {deviation:.2f}" if seeds > 1 else ""
        lines.append(
            f"| {rule} | {rate[rule]:g} | {mean:.2f}{error} | {mean - middle:+.2f} | "
            f"{' | '.join(shown)} | "
            f"{statistics.mean(cpu[rule]) / reference['cpu']:.2f} | "
            f"{statistics.mean(memory[rule]) / reference['memory']:.2f} | {seeds} |"
        )
    return "\n".join(lines)


def draw(study: Path, path: Path) -> None:
    """On the left accuracy in each place, on the right the blocks' cosines in the first of them."""
    results, angles = places(read(study / "results.csv")), read(study / "angles.csv")
    for name, rows in results.items():
        print(f"\n{name}\n\n{table(rows, angles)}")
    name, first = next(iter(results.items()))
    accuracy = by_rule(first, "final_test_accuracy")
    rules = sorted(accuracy, key=lambda rule: statistics.mean(accuracy[rule]))
    with canvas(10.5, 0.26 * len(rules) + 1) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        for place, (label, rows) in enumerate(results.items()):
            values = by_rule(rows, "final_test_accuracy")
            dots(left, rules, values, (INK, *PALETTE[1:])[place], MARKERS[place], label)
        for block in range(3):
            values = cosines(angles, {row["run"] for row in first}, block)
            dots(right, rules, values, PALETTE[block], MARKERS[block], f"block {block}")
        left.set(title="test accuracy (%)", yticks=range(len(rules)), yticklabels=rules)
        right.set(title=f"cosine of its gradient with back-propagation's ({name})")
        right.axvline(0, color=INK, linewidth=0.8)
        left.legend(loc="lower right")
        right.legend(loc="upper left")
        write_bytes(path, render(figure, path.suffix[1:]))


def dots(axes: Axes, rules: list[str], values: Values, color: str, marker: str, label: str) -> None:
    """A dot with the seeds' standard deviation for every rule that has values."""
    shown = [(row, *spread(values[rule])) for row, rule in enumerate(rules) if rule in values]
    at, means, deviations = zip(*shown, strict=True)
    axes.errorbar(means, at, xerr=deviations, color=color, marker=marker, linestyle="none", label=label)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
