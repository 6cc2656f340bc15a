"""Which rules are back-propagation in disguise: ``python .../disguise.py STUDY figure.svg``.

Accuracy over back-propagation's against the cosine of the gradients with its own, a panel for each network and data
set. Prints the README's tables too.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[3]))
sys.path.insert(0, str(Path(__file__).parents[1] / "2026-11-27_signals"))

from by_rule import by_rule, cosines, places, read, table

from reports.canvas import INK, MARKERS, PALETTE, canvas, render, write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FAMILIES = {
    "local losses": ("dgl", "ff", "sigprop"),
    "relaxation": ("pc", "ep"),
    "two passes": ("pepita", "foton"),
    "perturbation": ("fg", "es"),
}


def draw(study: Path, path: Path) -> None:
    """A panel for each place."""
    results, angles = places(read(study / "results.csv")), read(study / "angles.csv")
    with canvas(10.5, 4.6) as figure:
        panels = figure.subplots(1, len(results), squeeze=False)[0]
        for axes, (name, rows) in zip(panels, results.items(), strict=True):
            print(f"\n{name}\n\n{table(rows, angles)}")
            panel(axes, rows, angles)
            axes.set(title=name, xlabel="cosine of the gradient of the blocks before the last with back-propagation's")
        panels[0].set_ylabel("test accuracy over back-propagation's (points)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(FAMILIES))
        write_bytes(path, render(figure, path.suffix[1:]))


def panel(axes: Axes, rows: list[dict[str, str]], angles: list[dict[str, str]]) -> None:
    """A point with its name for every rule; rules without a cosine are left out."""
    accuracy = {rule: statistics.mean(values) for rule, values in by_rule(rows, "final_test_accuracy").items()}
    blocks = [cosines(angles, {row["run"] for row in rows}, block) for block in range(2)]
    for place, (family, rules) in enumerate(FAMILIES.items()):
        points = {
            rule: (statistics.mean(value for block in blocks for value in block[rule]), gap - accuracy["bp"])
            for rule, gap in accuracy.items()
            if rule.split("_")[0] in rules and all(rule in block for block in blocks)
        }
        if points:
            x, y = zip(*points.values(), strict=True)
            axes.plot(x, y, MARKERS[place], color=PALETTE[place], linestyle="none", label=family)
        for rule, point in points.items():
            axes.annotate(rule, point, textcoords="offset points", xytext=(4, 3), fontsize=7)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xlim(-0.3, 1.25)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
