"""Figures of the measurements of ``--diagnostics``, for runs that have them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from consts import ACCURACY, ALIGNMENT, CKA, GRADIENT_RATIO, INSIDE, PROBE_ACCURACY, TEST, block_name, metric_name
from reports.canvas import CARD, INK, PALETTE, canvas, integer_axis, ratio_axis, say_nothing_yet
from reports.curves import NO_VALUES, finish, plot, ramp
from reports.files import MAX_BLOCKS
from reports.heat_map import similarity_figure
from reports.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def inside_figures(run: Run) -> dict[str, Callable[[Run], Figure]]:
    """Name and drawing of the figures for which the run has values."""
    names = {name for line in run.epochs for name in line}
    wanted = {
        "alignment": (rf"{INSIDE}/block_\d+/{ALIGNMENT}", _alignment_figure),
        "gradient_ratio": (rf"{INSIDE}/block_\d+/{GRADIENT_RATIO}", _ratio_figure),
        "probes": (rf"{INSIDE}/block_\d+/{PROBE_ACCURACY}", _probes_figure),
        "probes_last": (rf"{INSIDE}/block_\d+/{PROBE_ACCURACY}", _last_probes_figure),
        "cka": (rf"{INSIDE}/block_\d+/{CKA}block_\d+", _cka_figure),
    }
    return {key: draw for key, (form, draw) in wanted.items() if any(re.fullmatch(form, str(name)) for name in names)}


def by_block(run: Run, quantity: str) -> dict[int, dict[int, float]]:
    """Curves by epoch of a diagnostic quantity, by block."""
    curves = {block: run.curve(metric_name(INSIDE, quantity, block)) for block in range(MAX_BLOCKS)}
    return {block: curve for block, curve in curves.items() if curve}


def _alignment_figure(run: Run) -> Figure:
    """The cosine with back-prop's gradient by epoch."""
    with canvas(*CARD) as figure:
        axes = figure.subplots()
        axes.axhline(0, color=INK, linewidth=0.8)
        _draw_blocks(axes, by_block(run, ALIGNMENT), "cosine with back-prop's gradient")
    return figure


def _ratio_figure(run: Run) -> Figure:
    """The ratio of the norms by epoch."""
    with canvas(*CARD) as figure:
        axes = figure.subplots()
        axes.axhline(1, color=INK, linewidth=0.8)
        _draw_blocks(axes, by_block(run, GRADIENT_RATIO), "gradient norm / norm of back-prop's", ratio=True)
    return figure


def _probes_figure(run: Run) -> Figure:
    """The accuracy of a linear probe of every block by epoch."""
    with canvas(*CARD) as figure:
        _draw_blocks(figure.subplots(), by_block(run, PROBE_ACCURACY), "accuracy of a linear probe (%)")
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
