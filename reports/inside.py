"""Figures of what was measured inside the blocks, by ``--diagnostics`` and by the rule, for runs that have it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from consts import (
    ACCURACY,
    ALIGNMENT,
    CKA,
    FEEDBACK,
    GRADIENT_RATIO,
    INSIDE,
    PROBE_ACCURACY,
    RECONSTRUCTION,
    SIGNAL,
    TEST,
    TRAIN,
    block_name,
    metric_name,
)
from reports.canvas import CARD, INK, PALETTE, canvas, integer_axis, ratio_axis, say_nothing_yet
from reports.curves import NO_VALUES, finish, plot, ramp
from reports.files import MAX_BLOCKS
from reports.heat_map import similarity_figure
from reports.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Curves(NamedTuple):
    """A figure of a quantity by epoch, a curve for each block.

    Attributes:
        quantity: name of the metric.
        title: of the figure.
        line: where a horizontal line says what would be neutral, if anywhere.
        is_ratio: draw it on a logarithmic axis.
        split: first word of the metric's name.
    """

    quantity: str
    title: str
    line: float | None = None
    is_ratio: bool = False
    split: str = INSIDE


CURVES = {
    "alignment": Curves(ALIGNMENT, "cosine with back-prop's gradient", 0),
    "gradient_ratio": Curves(GRADIENT_RATIO, "gradient norm / norm of back-prop's", 1, is_ratio=True),
    "signal_angle": Curves(SIGNAL[1], "angle of the signal to back-prop's (degrees)", 90),
    "signal_ratio": Curves(SIGNAL[2], "signal norm / norm of back-prop's", 1, is_ratio=True),
    "feedback_angle": Curves(FEEDBACK[1], "angle of feedback to forward weights (degrees)", 90),
    "feedback_ratio": Curves(FEEDBACK[2], "feedback norm / norm of forward weights", 1, is_ratio=True),
    "reconstruction": Curves(RECONSTRUCTION, "relative error of reconstructions by inverses", split=TRAIN),
    "probes": Curves(PROBE_ACCURACY, "accuracy of a linear probe (%)"),
}


def inside_figures(run: Run) -> dict[str, Callable[[Run], Figure]]:
    """Name and drawing of the figures for which the run has values."""
    names = {name for line in run.epochs for name in line}
    wanted: dict[str, tuple[str, Callable[[Run], Figure]]] = {
        name: (rf"{curves.split}/block_\d+/{curves.quantity}", partial(_curves_figure, curves))
        for name, curves in CURVES.items()
    }
    wanted["probes_last"] = (rf"{INSIDE}/block_\d+/{PROBE_ACCURACY}", _last_probes_figure)
    wanted["cka"] = (rf"{INSIDE}/block_\d+/{CKA}block_\d+", _cka_figure)
    return {key: draw for key, (form, draw) in wanted.items() if any(re.fullmatch(form, str(name)) for name in names)}


def by_block(run: Run, quantity: str, split: str = INSIDE) -> dict[int, dict[int, float]]:
    """Curves by epoch of a quantity that is measured for every block, by block."""
    curves = {block: run.curve(metric_name(split, quantity, block)) for block in range(MAX_BLOCKS)}
    return {block: curve for block, curve in curves.items() if curve}


def _curves_figure(curves: Curves, run: Run) -> Figure:
    with canvas(*CARD) as figure:
        axes = figure.subplots()
        if curves.line is not None:
            axes.axhline(curves.line, color=INK, linewidth=0.8)
        _draw_blocks(axes, by_block(run, curves.quantity, curves.split), curves.title, ratio=curves.is_ratio)
    return figure


def _last_probes_figure(run: Run) -> Figure:
    """After the last epoch, beside the blocks' own classifiers."""
    final = {block: list(curve.values())[-1] for block, curve in by_block(run, PROBE_ACCURACY).items()}
    heads = {block: run.curve(metric_name(TEST, ACCURACY, block)) for block in final}
    known = {block: list(curve.values())[-1] for block, curve in heads.items() if curve}
    with canvas(*CARD) as figure:
        axes = figure.subplots()
        axes.plot(list(final), list(final.values()), color=PALETTE[0], marker="o", label="linear probe")
        axes.plot(list(known), list(known.values()), color=PALETTE[1], marker="s", label="own classifier (test)")
        axes.set(title="accuracy after the last epoch (%)", xlim=(min(final) - 0.3, max(final) + 0.3))
        integer_axis(axes, "block")
        axes.legend(loc="best")
    return figure


def _draw_blocks(axes: Axes, curves: dict[int, dict[int, float]], title: str, *, ratio: bool = False) -> None:
    colours = ramp(max(curves) + 1) if curves else []
    ends = []
    for block, curve in curves.items():
        plot(axes, curve, colours[block], f"block {block}")
        ends.append((list(curve.values())[-1], f"block {block}", colours[block]))
    if ratio:
        ratio_axis(axes)
    finish(axes, ends, title)


def _cka_figure(run: Run) -> Figure:
    """Similarity of every two blocks after the last epoch."""
    last = next(line for line in reversed(run.epochs) if any(f"/{CKA}" in str(name) for name in line))
    count = 1 + max(int(match[1]) for name in last if (match := re.search(rf"{CKA}block_(\d+)$", str(name))))
    grid = [[1.0] * count for _ in range(count)]
    for low in range(count):
        for high in range(low + 1, count):
            value = last.get(metric_name(INSIDE, CKA + block_name(high), low))
            grid[low][high] = grid[high][low] = float("nan") if value is None else float(value)
    if count < 2:
        with canvas(*CARD) as figure:
            say_nothing_yet(figure.subplots(), NO_VALUES)
        return figure
    return similarity_figure(grid, "block", "block")
