"""The figures of one run, each of one panel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from consts import ACCURACY, LOSS, TEST, TRAIN, VAL, metric_name
from reports.canvas import CARD, PALETTE, canvas, integer_axis, render
from reports.curves import finish, plot, ramp
from reports.inside import inside_figures
from reports.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEST_ACCURACY = "test accuracy (%)"
MAX_NAMED_BLOCKS = 9  # with more, only some curves are named, and numbers above bars are rounded


def run_pictures(run: Run) -> dict[str, str]:
    """Name and SVG text of every figure of one run."""
    figures: dict[str, Callable[[Run], Figure]] = {"accuracy": _accuracy_figure, "loss": _loss_figure}
    if sum(value is not None for value in run.block_accuracies()) > 1:
        figures |= {"blocks": _blocks_figure, "last": _bars_figure}
    if run.steps:
        figures |= {"rate": _rate_figure, "throughput": _throughput_figure}
    return {
        name: render(draw(run), "svg", values=True).decode() for name, draw in (figures | inside_figures(run)).items()
    }


def _loss_figure(run: Run) -> Figure:
    return _splits_figure(run, LOSS, "loss", "{:.3f}")


def _accuracy_figure(run: Run) -> Figure:
    return _splits_figure(run, ACCURACY, "accuracy (%)", "{:.1f} %")


def _splits_figure(run: Run, quantity: str, title: str, form: str) -> Figure:
    """A quantity of the network on every split by epoch, the last values written beside the curves."""
    with canvas(*CARD) as figure:
        axes = figure.subplots()
        curves = {split: run.curve(metric_name(split, quantity)) for split in (TRAIN, VAL, TEST)}
        ends = []
        for (split, curve), colour in zip(curves.items(), (PALETTE[0], PALETTE[2], PALETTE[1]), strict=True):
            if curve:
                plot(axes, curve, colour, split)
                last = list(curve.values())[-1]
                ends.append((last, f"{split} {form.format(last)}", colour))
        finish(axes, ends, title)
    return figure


def _rate_figure(run: Run) -> Figure:
    return _steps_figure(run, "learning_rate", "learning rate")


def _throughput_figure(run: Run) -> Figure:
    return _steps_figure(run, "images_per_second", "training throughput (images/s)")


def _steps_figure(run: Run, key: str, title: str) -> Figure:
    """A value of the lines that are written between the ends of epochs."""
    with canvas(*CARD) as figure:
        axes = figure.subplots()
        if curve := run.steps_curve(key):
            plot(axes, curve, PALETTE[0], title.partition(" (")[0])
            axes.set_ylim(bottom=0)
        finish(axes, [], title, "step")
    return figure


def _blocks_figure(run: Run) -> Figure:
    """Test accuracy of every block by epoch."""
    colours = ramp(len(run.block_accuracies()))
    every = 1 + (len(colours) - 1) // MAX_NAMED_BLOCKS
    with canvas(*CARD) as figure:
        axes, ends = figure.subplots(), []
        for block, colour in enumerate(colours):
            curve = run.curve(metric_name(TEST, ACCURACY, block))
            if curve:
                plot(axes, curve, colour, f"block {block}")
                if block % every == 0 or block == len(colours) - 1:
                    ends.append((list(curve.values())[-1], f"block {block}", colour))
        finish(axes, ends, f"{TEST_ACCURACY} by block")
    return figure


def _bars_figure(run: Run) -> Figure:
    """Test accuracy of every block after the last epoch, side by side."""
    final = run.block_accuracies()
    known = {block: value for block, value in enumerate(final) if value is not None}
    few = len(final) <= MAX_NAMED_BLOCKS
    with canvas(*CARD) as figure:
        axes = figure.subplots()
        axes.bar(list(known), list(known.values()), color=[ramp(len(final))[block] for block in known])
        for block, value in enumerate(final):
            text = ("no head" if few else "-") if value is None else f"{value:.{1 if few else 0}f}"
            axes.annotate(text, (block, value or 0), (0, 2), textcoords="offset points", ha="center", va="bottom")
        axes.set(xlim=(-0.6, len(final) - 0.4), ylim=(0, max(known.values()) * 1.12 + 1e-9))
        axes.set_title(f"{TEST_ACCURACY} after the last epoch")
        axes.grid(visible=False, axis="x")
        integer_axis(axes, "block")
    return figure
