"""Figure of ``evaluate --information``: information of features about image and label, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reports.canvas import INK, PALETTE, canvas, render, write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Level = tuple[float, str]  # a bound of a curve, and its name


def draw_information(
    errors: Sequence[float], labels: Sequence[float], floor: float, constant: float, entropy: float, path: Path
) -> None:
    """Write the figure as SVG: left for the image, right for the label, from the input image to the last block.

    Args:
        errors: R of the image and of every block, in nats per pixel value.
        labels: estimates of I(h, y) of the same, in nats.
        floor: lower bound of R.
        constant: R of a constant input.
        entropy: of the labels, in nats.
        path: file to write.
    """
    with canvas(9.0, 3.4) as figure:
        left, right = figure.subplots(1, 2)
        draw_by_depth(
            left, [-error for error in errors], (-constant, "constant input"), (-floor, "the pixels' own entropy")
        )
        left.set(ylabel="-R (nats a pixel value)", title="I(h, x), up to a constant")
        draw_by_depth(right, labels, (0, "constant input"), (entropy, "entropy of the labels"))
        right.set(ylabel="H(y) - CE (nats)", title="I(h, y)")
        content = render(figure, "svg")
    write_bytes(path, content)


def draw_by_depth(axes: Axes, values: Sequence[float], lower: Level, upper: Level) -> None:
    """Draw a curve by block between two bounds; the first value is that of the image."""
    axes.plot(range(-1, len(values) - 1), values, color=PALETTE[0], marker="o")
    for (value, text), side, end in (
        (lower, "top", "right"),
        (upper, "bottom", "left"),
    ):  # outside the bounds, away from the curve
        axes.axhline(value, color=INK, linewidth=0.8)
        axes.annotate(
            text, (0.99 if end == "right" else 0.01, value), (0, 3 if side == "bottom" else -3),
            xycoords=("axes fraction", "data"), textcoords="offset points", ha=end, va=side, fontsize=8,
        )  # fmt: skip
    axes.margins(y=0.12)
    blocks = range(0, len(values) - 1, 1 + (len(values) - 2) // 12)
    axes.set_xticks([-1, *blocks], ["\nimage", *map(str, blocks)])
    axes.set_xlabel("block")
