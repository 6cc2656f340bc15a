"""Figures that compare many runs: final accuracies as a ranking, accuracy by block, and training curves.

A panel draws into one pair of axes. Panels stand alone on a page, whose legend is one for all, and side by side with a
legend of their own in a file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from consts import ACCURACY, LOSS, TEST, TRAIN, metric_name
from reports.against import against_figure
from reports.blocks import difference_panels
from reports.canvas import CARD, FONT_PT, PALETTE, PAPER, canvas, integer_axis, render, say_nothing_yet, series
from reports.curves import NO_VALUES
from reports.groups import Group, group_runs
from reports.looks import Look, legend, legend_columns, looks_of, plot_spread
from reports.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LABEL = 60  # characters of a group's title in the ranking
_QUANTITIES = {ACCURACY: "accuracy (%)", LOSS: "loss"}

Panel = Callable[["Axes", Sequence[Group], Sequence[Look]], None]


def comparison_pictures(runs: Sequence[Run]) -> dict[str, str]:
    """Name and SVG text of the figures that stand in files of their own, each with its legend."""
    groups = group_runs(runs)
    figures = {"comparison": comparison_figure(runs), "ranking": ranking_figure(runs), "curves": curves_figure(runs)}
    if panels := difference_panels(groups):
        figures["blocks_compared"] = _sheet(groups, [*panels.values()], 2, markers=True)
    if (against := against_figure(runs)) is not None:
        figures["against"] = against
    return {name: render(figure, "svg").decode() for name, figure in figures.items()}


def comparison_cards(runs: Sequence[Run]) -> dict[str, str]:
    """Name and SVG text of the panels for a page; the series of each group has its place in `group_runs`."""
    groups = group_runs(runs)
    panels: dict[str, Panel] = {}
    if any(run.epochs for run in runs):
        panels |= {f"{TEST}_{quantity}": partial(_by_epoch, TEST, quantity) for quantity in _QUANTITIES}
    panels["by_block"] = _by_block
    if any(run.epochs for run in runs):
        panels |= {f"{TRAIN}_{quantity}": partial(_by_epoch, TRAIN, quantity) for quantity in _QUANTITIES}
    panels |= difference_panels(groups)
    against = against_figure(runs, card=True)
    figures = {"against": against} if against is not None else {}
    figures |= {name: _sheet(groups, [panel], 1) for name, panel in panels.items()}
    return {name: render(figure, "svg", values=True).decode() for name, figure in figures.items()}


def comparison_figure(runs: Sequence[Run]) -> Figure:
    """Left the test accuracy by block, right the loss by epoch; runs that kept no curves have the left one only."""
    groups = group_runs(runs)
    only_ends = any(group.block_accuracies() for group in groups) and not any(run.epochs for run in runs)
    return _sheet(groups, [_by_block] if only_ends else [_by_block, _losses], 1 if only_ends else 2, markers=True)


def curves_figure(runs: Sequence[Run]) -> Figure:
    """Train and test accuracy and loss of the network by epoch, one line for each group."""
    panels = [partial(_by_epoch, split, quantity) for split in (TRAIN, TEST) for quantity in _QUANTITIES]
    return _sheet(group_runs(runs), panels, 2)


def _sheet(groups: Sequence[Group], panels: Sequence[Panel], num_columns: int, *, markers: bool = False) -> Figure:
    """Panels in rows with a legend below, or a single one as a card for a page, which has a legend itself."""
    titles = [group.title for group in groups]
    looks = looks_of(titles)
    is_card = len(panels) == num_columns == 1 and not markers
    rows = -(-len(panels) // num_columns)
    size = CARD if is_card else (9.0, 3.1 * rows + 0.4 + 0.2 * -(-len(groups) // legend_columns(titles)))
    with canvas(*size) as figure:
        grid = figure.subplots(rows, num_columns, squeeze=False).flatten()
        for axes, panel in zip(grid, panels, strict=False):
            panel(axes, groups, looks)
            if not axes.has_data():
                say_nothing_yet(axes, NO_VALUES)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        if not is_card:
            legend(figure, looks, markers=markers)
    return figure


def _by_epoch(split: str, quantity: str, axes: Axes, groups: Sequence[Group], looks: Sequence[Look]) -> None:
    for group, look in zip(groups, looks, strict=True):
        if curve := group.curve(metric_name(split, quantity)):
            plot_spread(axes, curve, look, marker="o" if len(curve) == 1 else "", linestyle=look.style)
    axes.set_title(f"{split} {_QUANTITIES[quantity]}")
    integer_axis(axes, "epoch")


def _losses(axes: Axes, groups: Sequence[Group], looks: Sequence[Look]) -> None:
    for group, look in zip(groups, looks, strict=True):
        for split, width in ((TRAIN, 0.8), (TEST, 2.2)):
            if curve := group.curve(metric_name(split, LOSS)):
                plot_spread(axes, curve, look, linewidth=width, marker="o" if len(curve) == 1 else "")
    axes.set_title("loss of the network: train thin, test thick")
    integer_axis(axes, "epoch")


def _by_block(axes: Axes, groups: Sequence[Group], looks: Sequence[Look]) -> None:
    """A line over the blocks; for a network trained as a whole its final accuracy: a point, and a thin line across."""
    num_blocks = max(1, *(len(group.block_accuracies()) for group in groups))
    for group, look in zip(groups, looks, strict=True):
        blocks = {block: value for block, value in enumerate(group.block_accuracies()) if value is not None}
        final, gid = group.spread("final_test_accuracy"), series(look.number)
        if len(blocks) > 1:
            plot_spread(axes, blocks, look, marker=look.marker)
        elif final is not None:
            axes.axhline(final.mean, color=look.colour, linewidth=0.9, alpha=0.7, gid=gid)
            axes.axhspan(final.low, final.high, color=look.colour, alpha=0.12, linewidth=0, gid=gid)
            last = {max(blocks, default=num_blocks - 1): replace(final, low=final.mean, high=final.mean)}
            plot_spread(axes, last, look, marker=look.marker, markersize=7)
    axes.set(title="test accuracy (%) by block", xlim=(-0.3, num_blocks - 0.7))
    integer_axis(axes, "block")


def ranking_figure(runs: Sequence[Run]) -> Figure:
    """Final test accuracy of every group, best first: the mean as a point, the range over its runs as a bar."""
    found = [(spread, group) for group in group_runs(runs) if (spread := group.spread("final_test_accuracy"))]
    found.reverse()
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
