"""Confusion matrix of a run, as a CSV file and a figure."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from consts import CONFUSION, PLOT_DIR
from reports.canvas import PALETTE, canvas, render, write_bytes
from reports.files import printable
from utils import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_NAMED = 20  # classes; with more, neither names nor numbers fit
MAX_NAME = 14  # characters


def write_confusion(folder: Path, counts: Sequence[Sequence[int]], class_names: Sequence[str]) -> Path:
    """Write ``confusion.csv`` and a figure of it, and return the path of the figure.

    Args:
        folder: of the run.
        counts: number of images by label (rows) and prediction (columns).
        class_names: one for each label.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["label", *class_names])
    writer.writerows([name, *row] for name, row in zip(class_names, counts, strict=True))
    write_text(folder / f"{CONFUSION}.csv", buffer.getvalue())
    path = folder / PLOT_DIR / f"{CONFUSION}.png"
    write_bytes(path, render(confusion_figure(counts, class_names), "png"))
    return path


def confusion_figure(counts: Sequence[Sequence[int]], class_names: Sequence[str]) -> Figure:
    """Share of every label's images by prediction, in percent; correct predictions are on the diagonal."""
    from matplotlib.colors import LinearSegmentedColormap

    shares = [[100 * count / max(1, sum(row)) for count in row] for row in counts]
    colours = LinearSegmentedColormap.from_list("share", ["#f6f8fa", "#7fb4d6", PALETTE[0], "#003a63"])
    few = len(class_names) <= MAX_NAMED
    side = 2.2 + 0.36 * len(class_names) if few else 6.4
    with canvas(side + 1.5, side) as figure:
        axes = figure.subplots()
        image = axes.imshow(shares, cmap=colours, vmin=0, vmax=100, interpolation="nearest")
        figure.colorbar(image, ax=axes, label="% of the label's images")
        for row, values in enumerate(shares) if few else ():
            for column, value in enumerate(values):
                if value >= 0.5:
                    shade = "#ffffff" if value > 50 else "#000000"
                    axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=shade)
        if few:
            names = [printable(name)[:MAX_NAME] for name in class_names]
            axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
            axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="prediction", ylabel="label")
        axes.grid(visible=False)
    return figure
