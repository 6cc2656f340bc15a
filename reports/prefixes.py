"""Figure of ``evaluate --prefixes``: accuracy against size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from reports.canvas import INK, PALETTE, canvas, render, write_bytes


def draw_prefixes(
    sizes: Mapping[str, Sequence[int]],
    accuracies: Sequence[float],
    blocks: Sequence[int],
    chosen: Mapping[str, int],
    within: float,
    split: str,
    path: Path,
) -> None:
    """Write the figure as SVG: one panel for each kind of size.

    Args:
        sizes: of every prefix, by kind; the last one is the whole network.
        accuracies: of every prefix, in percent.
        blocks: their last block indices.
        chosen: by kind of size, the position of the smallest prefix that is accurate enough.
        within: points of accuracy that may be lost.
        split: on which the accuracies were measured.
        path: file to write.
    """
    floor = accuracies[-1] - within
    with canvas(4.2 * len(sizes), 3.6) as figure:
        pictures = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
        for axes, (name, values) in zip(pictures, sizes.items(), strict=True):
            points = [(value / 1e6, accuracy) for value, accuracy in zip(values, accuracies, strict=True)]
            axes.plot(*zip(*points, strict=True), "s", color=PALETTE[0])
            axes.plot(
                *points[chosen[name]], "o", color=PALETTE[2], markersize=8, zorder=3, label="smallest within the limit"
            )
            for point, block in zip(points, blocks, strict=True):
                axes.annotate(
                    f"block {block}", point, (0, -7), textcoords="offset points", ha="center", va="top", fontsize=8
                )
            axes.axhline(floor, color=INK, linewidth=0.8, label=f"{within:g} points below the whole network")
            axes.margins(0.15)
            axes.set(xlabel=f"million {name.removeprefix('num_').replace('_', '-')}")
        pictures[0].set(ylabel=f"{split} accuracy (%)")
        pictures[-1].legend(fontsize=8)
        content = render(figure, "svg")
    write_bytes(path, content)
