"""The figures of one run, and the one that compares several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from consts import ACCURACY, LOSS, TEST, TRAIN, VAL, metric_name
from reports.canvas import (
    MARKERS,
    PALETTE,
    canvas,
    integer_axis,
    render,
    say_nothing_yet,
)
from reports.curves import NO_VALUES, finish, plot, ramp
from reports.groups import Group, Spread, group_runs
from reports.inside import inside_figures
from reports.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEST_ACCURACY = "test accuracy (%)"
MAX_NAMED_BLOCKS = 9  # with more, only some curves are named, and numbers above bars are rounded
LINE_STYLES = ("-", "--", ":", "-.")
LEGEND_WIDTH = 110  # characters that fit below a figure of README width


def run_pictures(run: Run) -> dict[str, str]:
    """Name and SVG text of every figure of one run."""
    figures = _RUN_FIGURES | inside_figures(run)
    return {name: render(draw(run), "svg").decode() for name, draw in figures.items()}


def _loss_figure(run: Run) -> Figure:
    return _curves_figure(run, LOSS, "loss", "{:.3f}")


def _accuracy_figure(run: Run) -> Figure:
    return _curves_figure(run, ACCURACY, "accuracy (%)", "{:.1f} %")


def _curves_figure(run: Run, quantity: str, label: str, form: str) -> Figure:
    """A quantity of the network on every split by epoch, the last values written beside the curves."""
    with canvas(6.4, 3.4) as figure:
        axes = figure.subplots()
        curves = {split: run.curve(metric_name(split, quantity)) for split in (TRAIN, VAL, TEST)}
        ends = []
        for (split, curve), colour in zip(curves.items(), (PALETTE[0], PALETTE[2], PALETTE[1]), strict=True):
            if curve:
                plot(axes, curve, colour)
                last = list(curve.values())[-1]
                ends.append((last, f"{split} {form.format(last)}", colour))
        finish(axes, ends, label)
    return figure


def _blocks_figure(run: Run) -> Figure:
    """Test accuracy of every block by epoch, and at the end side by side."""
    final = run.block_accuracies()
    colours = ramp(len(final))
    every = 1 + (len(final) - 1) // MAX_NAMED_BLOCKS
    with canvas(9.0, 3.4) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1.3, 1))
        ends = []
        for block, colour in enumerate(colours):
            curve = run.curve(metric_name(TEST, ACCURACY, block))
            if curve:
                plot(left, curve, colour)
                if block % every == 0 or block == len(final) - 1:
                    ends.append((list(curve.values())[-1], f"block {block}", colour))
        finish(left, ends, TEST_ACCURACY)
        _bars(right, final, colours)
    return figure


def _bars(axes: Axes, final: Sequence[float | None], colours: Sequence[str]) -> None:
    known = {block: value for block, value in enumerate(final) if value is not None}
    if not known:
        say_nothing_yet(axes, NO_VALUES)
        return
    few = len(final) <= MAX_NAMED_BLOCKS
    axes.bar(list(known), list(known.values()), color=[colours[block] for block in known])
    for block, value in enumerate(final):
        text = ("no head" if few else "-") if value is None else f"{value:.{1 if few else 0}f}"
        axes.annotate(text, (block, value or 0), (0, 2), textcoords="offset points", ha="center", va="bottom")
    axes.set(ylabel=f"last {TEST_ACCURACY}", xlim=(-0.6, len(final) - 0.4), ylim=(0, max(known.values()) * 1.12 + 1e-9))
    axes.grid(visible=False, axis="x")
    integer_axis(axes, "block")


_RUN_FIGURES: dict[str, Callable[[Run], Figure]] = {
    "loss": _loss_figure, "accuracy": _accuracy_figure, "blocks": _blocks_figure,
}  # fmt: skip


def comparison_figure(runs: Sequence[Run]) -> Figure:
    """Left the test accuracy by block, right the loss by epoch, one colour for each group of runs.

    Runs that kept no curves have the left one only.
    """
    groups = group_runs(runs)
    looks, titles = group_looks(len(groups)), [group.title for group in groups]
    with canvas(9.0, 3.5 + 0.2 * -(-len(groups) // _columns(titles))) as figure:
        num_blocks = max(len(group.block_accuracies()) for group in groups)
        only_ends = num_blocks > 0 and not any(run.epochs for run in runs)
        panels = figure.subplots(1, 1 if only_ends else 2, squeeze=False).flatten()
        for group, (colour, marker) in zip(groups, looks, strict=True):
            _by_block(panels[0], group, colour, marker, max(num_blocks, 1) - 1)
        panels[0].set(title="accuracy by block", ylabel=TEST_ACCURACY, xlim=(-0.3, max(num_blocks, 1) - 0.7))
        integer_axis(panels[0], "block")
        for axes in panels[1:]:
            for group, (colour, _) in zip(groups, looks, strict=True):
                _losses(axes, group, colour)
            axes.set(title="loss of the network: train thin, test thick", ylabel="loss")
            integer_axis(axes, "epoch")
        for axes in panels:
            if not axes.has_data():
                say_nothing_yet(axes, NO_VALUES)
        group_legend(figure, titles, looks)
    return figure


def group_looks(count: int) -> list[tuple[str, str]]:
    """A colour and a marker for each group."""
    return list(zip(islice(cycle(PALETTE), count), _markers(count), strict=True))


def line_styles(count: int) -> list[str]:
    """A style for each line: solid, and others when the colours start again."""
    return list(islice(cycle(style for style in LINE_STYLES for _ in PALETTE), count))


def group_legend(
    figure: Figure, titles: Sequence[str], looks: Sequence[tuple[str, str]], styles: Sequence[Any] = ()
) -> None:
    """Titles below the figure, beside their markers, or their line styles where there are some."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, marker="" if styles else marker) for colour, marker in looks]
    for handle, style in zip(handles, styles, strict=False):
        handle.set_linestyle(style)
    figure.legend(handles, titles, loc="outside lower center", ncols=_columns(titles))


def _columns(titles: Sequence[str]) -> int:
    return max(1, min(len(titles), LEGEND_WIDTH // (max(map(len, titles)) + 6)))


def _by_block(axes: Axes, group: Group, colour: str, marker: str, last_block: int) -> None:
    """A line over the blocks; for a network trained as a whole its final accuracy: a point, and a thin line across."""
    blocks = {block: value for block, value in enumerate(group.block_accuracies()) if value is not None}
    if len(blocks) > 1:
        plot_spread(axes, blocks, colour, marker=marker)
        return
    final = group.spread("final_test_accuracy")
    if final is not None:
        axes.axhline(final.mean, color=colour, linewidth=0.9, alpha=0.7)
        axes.axhspan(final.low, final.high, color=colour, alpha=0.12, linewidth=0)
        axes.plot([max(blocks, default=last_block)], [final.mean], color=colour, marker=marker, markersize=7)


def _losses(axes: Axes, group: Group, colour: str) -> None:
    for split, width in ((TRAIN, 0.8), (TEST, 2.2)):
        curve = group.curve(metric_name(split, LOSS))
        if curve:
            plot_spread(axes, curve, colour, linewidth=width, marker="o" if len(curve) == 1 else "")


def plot_spread(
    axes: Axes,
    values: Mapping[int, Spread] | Mapping[float, Spread],
    colour: str,
    *,
    marker: str,
    linewidth: float = 1.8,
    linestyle: Any = "-",
) -> None:
    """The mean over runs as a line, from the lowest to the highest run as a band."""
    means = [value.mean for value in values.values()]
    x = list(values)
    axes.plot(x, means, color=colour, marker=marker, linewidth=linewidth, linestyle=linestyle)
    low, high = [value.low for value in values.values()], [value.high for value in values.values()]
    if low != high:
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


def _markers(count: int) -> list[str]:
    """A marker for each group; when the colours start again, they start again one marker further."""
    return [MARKERS[(index + index // len(PALETTE)) % len(MARKERS)] for index in range(count)]
