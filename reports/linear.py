"""Figure of ``evaluate --linear``: accuracy of linear classifiers, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reports.canvas import canvas, render, write_bytes
from reports.information import draw_by_depth


def draw_linear(accuracies: Sequence[float], chance: float, own: float, path: Path) -> None:
    """Write the figure as SVG, from the input image to the last block.

    Args:
        accuracies: of linear classifiers on the image and on every block, in percent.
        chance: accuracy of a random guess, in percent.
        own: accuracy of the network's classifier, in percent.
        path: file to write.
    """
    with canvas(4.5, 3.4) as figure:
        axes = figure.subplots()
        draw_by_depth(axes, accuracies, (chance, "chance"), (own, "the network's own classifier"))
        axes.set(ylabel="test accuracy (%)", title="Linear classifiers on frozen features")
        content = render(figure, "svg")
    write_bytes(path, content)
