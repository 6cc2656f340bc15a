"""Heat map of a similarity matrix: of one run for its report, of two runs for ``evaluate --cka``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from reports.canvas import CARD, PALETTE, canvas, render, write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINE = 50  # characters per line of a label
MAX_NUMBERED = 6  # with more rows or columns, numbers would not fit their cells


def similarity_figure(grid: Sequence[Sequence[float]], row_label: str, column_label: str) -> Figure:
    """Draw the matrix with its first row on top; NaN is left empty, and long labels are wrapped.

    Args:
        grid: similarities in [0, 1], at least one row.
        row_label: name of the row axis.
        column_label: name of the column axis.
    """
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("similarity", ["#f6f8fa", "#7fb4d6", PALETTE[0], "#003a63"])
    sizes = (len(grid), len(grid[0]))
    with canvas(CARD[0], 1.2 * CARD[1]) as figure:
        axes = figure.subplots()
        figure.colorbar(axes.pcolormesh(grid, cmap=colours, vmin=0, vmax=1), ax=axes, label="linear CKA")
        for row, values in enumerate(grid):
            for column, value in enumerate(values) if max(sizes) <= MAX_NUMBERED else ():
                shade = "#ffffff" if value > 0.5 else "#000000"
                axes.text(column + 0.5, row + 0.5, f"{value:.2f}", ha="center", va="center", color=shade)
        for axis, size in zip((axes.yaxis, axes.xaxis), sizes, strict=True):
            ticks = range(0, size, 1 + (size - 1) // 9)
            axis.set_ticks([tick + 0.5 for tick in ticks], [str(tick) for tick in ticks])
        axes.set(xlabel=fill(column_label, LINE), ylabel=fill(row_label, LINE), aspect="equal")
        axes.invert_yaxis()
        axes.grid(visible=False)
    return figure


def draw_similarity(grid: Sequence[Sequence[float]], row_label: str, column_label: str, path: Path) -> None:
    """Write `similarity_figure` as SVG."""
    write_bytes(path, render(similarity_figure(grid, row_label, column_label), "svg"))
