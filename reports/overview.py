"""Figures that compare many runs: final accuracies as a ranking, and training curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from consts import ACCURACY, LOSS, TEST, TRAIN, metric_name
from reports.against import against_figure
from reports.blocks import difference_figure, has_differences
from reports.canvas import FONT_PT, INK, PALETTE, PAPER, canvas, integer_axis, render, say_nothing_yet
from reports.figures import NO_VALUES, comparison_figure, group_legend, group_looks, line_styles, plot_spread
from reports.groups import group_runs
from reports.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_LABEL = 60  # characters of a group's title in the ranking
_QUANTITIES = {LOSS: "loss", ACCURACY: "accuracy (%)"}


def ranking_figure(runs: Sequence[Run]) -> Figure:
    """Final test accuracy of every group, best first: the mean as a point, the range over its runs as a bar."""
    found = [(spread, group) for group in group_runs(runs) if (spread := group.spread("final_test_accuracy"))]
    found.sort(key=lambda pair: pair[0].mean)
    with canvas(9.0, 0.9 + 0.24 * max(3, len(found))) as figure:
        axes = figure.subplots()
        for place, (spread, _) in enumerate(found):
            axes.plot([spread.low, spread.high], [place, place], color=PALETTE[0], linewidth=4, alpha=0.35)
            axes.plot([spread.mean], [place], color=PALETTE[0], marker="o", markersize=6)
            deviation = f" ± {spread.deviation:.1f}" if spread.count > 1 else ""
            offset = (0.9 * FONT_PT, 0)
            text = axes.annotate(
                f"{spread.mean:.1f}{deviation}", (spread.high, place), offset, textcoords="offset points", va="center"
            )
            text.set_bbox({"facecolor": PAPER, "edgecolor": "none", "pad": 0.5})
        axes.set_yticks(range(len(found)), [_shortened(group.title) for _, group in found])
        axes.set(xlabel="final test accuracy (%)", ylim=(-0.7, max(0, len(found) - 1) + 0.7))
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.12)
        if not found:
            say_nothing_yet(axes, NO_VALUES)
    return figure


def _shortened(title: str) -> str:
    return title if len(title) <= MAX_LABEL else f"{title[: MAX_LABEL - 3]}..."


def curves_figure(runs: Sequence[Run]) -> Figure:
    """Train and test loss and accuracy of the network by epoch, one line for each group."""
    groups = group_runs(runs)
    looks = group_looks(len(groups))
    styles = line_styles(len(groups))
    with canvas(9.0, 6.0 + 0.2 * len(groups) / 3) as figure:
        panels = figure.subplots(2, 2, sharex=True)
        for row, split in zip(panels, (TRAIN, TEST), strict=True):
            for axes, (quantity, label) in zip(row, _QUANTITIES.items(), strict=True):
                for group, (colour, _), style in zip(groups, looks, styles, strict=True):
                    curve = group.curve(metric_name(split, quantity))
                    if curve:
                        plot_spread(axes, curve, colour, marker="o" if len(curve) == 1 else "", linestyle=style)
                axes.set_ylabel(f"{split} {label}", color=INK)
                if not axes.has_data():
                    say_nothing_yet(axes, NO_VALUES)
                elif split == TEST:
                    integer_axis(axes, "epoch")
        group_legend(figure, [group.title for group in groups], looks, styles)
    return figure


_FIGURES: dict[str, Callable[[Sequence[Run]], Figure]] = {
    "comparison": comparison_figure,
    "ranking": ranking_figure,
    "curves": curves_figure,
}


def comparison_pictures(runs: Sequence[Run]) -> dict[str, str]:
    """Name and SVG text of every figure that compares ``runs``."""
    figures = dict(_FIGURES)
    if has_differences(group_runs(runs)):
        figures["blocks_compared"] = difference_figure
    drawn = {name: draw(runs) for name, draw in figures.items()}
    if (against := against_figure(runs)) is not None:
        drawn["against"] = against
    return {name: render(figure, "svg").decode() for name, figure in drawn.items()}
