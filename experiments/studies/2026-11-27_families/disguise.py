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

NEAR, CROWDED = -7, 0.95  # points of accuracy; the cosine beyond which names stand in a list
FAMILIES = {
    "local losses": ("dgl", "ff", "sigprop"),
    "relaxation": ("pc", "ep"),
    "two passes": ("pepita", "foton"),
    "perturbation": ("fg", "es"),
}


def draw(study: Path, path: Path) -> None:
    """Two panels for each place: all rules, and those that are near back-propagation."""
    results, angles = places(read(study / "results.csv")), read(study / "angles.csv")
    with canvas(10.5, 4.6 * len(results)) as figure:
        panels = figure.subplots(len(results), 2, squeeze=False, width_ratios=(1, 2.2))
        for (everything, near), (name, rows) in zip(panels, results.items(), strict=True):
            print(f"\n{name}\n\n{table(rows, angles)}")
            for axes in (everything, near):
                panel(axes, rows, angles, lowest=NEAR if axes is near else -100)
                axes.axhline(0, color=INK, linewidth=0.8)
            everything.set(title=name, xlabel="cosine", ylabel="test accuracy over back-propagation's (points)")
            near.set(
                title=f"those within {-NEAR} points", xlim=(0, 1.3), ylim=(NEAR, 1.2),
                xlabel="cosine of the gradient of the blocks before the last with back-propagation's",
            )  # fmt: skip
        figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(FAMILIES))
        write_bytes(path, render(figure, path.suffix[1:]))


def panel(axes: Axes, rows: list[dict[str, str]], angles: list[dict[str, str]], lowest: float) -> None:
    """A point for every rule above ``lowest`` that has a cosine, and its name where no nearer panel names it."""
    accuracy = {rule: statistics.mean(values) for rule, values in by_rule(rows, "final_test_accuracy").items()}
    blocks = [cosines(angles, {row["run"] for row in rows}, block) for block in range(2)]
    crowd: list[tuple[float, str]] = []
    for place, (family, rules) in enumerate(FAMILIES.items()):
        points = {
            rule: (statistics.mean(value for block in blocks for value in block[rule]), value - accuracy["bp"])
            for rule, value in accuracy.items()
            if rule.split("_")[0] in rules and all(rule in block for block in blocks)
        }
        points = {rule: point for rule, point in points.items() if point[1] >= lowest}
        if points:
            x, y = zip(*points.values(), strict=True)
            axes.plot(x, y, MARKERS[place], color=PALETTE[place], linestyle="none", label=family)
        for rule, (x_rule, y_rule) in points.items():
            if x_rule > CROWDED:
                crowd.append((y_rule, rule))
            elif (y_rule >= NEAR) == (lowest == NEAR):
                axes.annotate(rule, (x_rule, y_rule), textcoords="offset points", xytext=(5, 4), fontsize=7)
    if lowest == NEAR:
        names = "\n".join(rule for _, rule in sorted(crowd, reverse=True))
        axes.text(1.03, 0.9, names, va="top", fontsize=7)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
