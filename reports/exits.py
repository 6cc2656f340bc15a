"""Figure of ``evaluate --early_exit``: accuracy against cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reports.canvas import INK, PALETTE, canvas, render, write_bytes

Point = tuple[float, float]  # mean multiply-adds of an image, accuracy in percent


def draw_exits(
    curve: Sequence[Point], alone: Sequence[Point], blocks: Sequence[int], chosen: Point, plain: float, path: Path
) -> None:
    """Write the figure as SVG.

    Args:
        curve: one point per threshold.
        alone: one point per exit, if all images leave there.
        blocks: block indices of the exits.
        chosen: the point of the recommended threshold.
        plain: multiply-adds of the network without heads.
        path: file to write.
    """
    with canvas(6.4, 3.8) as figure:
        axes = figure.subplots()
        curve = sorted(curve)
        axes.plot(*zip(*[(cost / 1e6, value) for cost, value in curve], strict=True), color=PALETTE[0])
        axes.plot(*zip(*[(cost / 1e6, value) for cost, value in alone], strict=True), "s", color=PALETTE[1])
        for (cost, value), block in zip(alone, blocks, strict=True):
            side, shift = ("right", -2) if block == blocks[-1] else ("left", 6)  # below the curve, inside the axes
            axes.annotate(
                f"all at block {block}", (cost / 1e6, value), (shift, -5), textcoords="offset points", ha=side,
                va="top", fontsize=8, color=PALETTE[1],
            )  # fmt: skip
        axes.plot(chosen[0] / 1e6, chosen[1], "o", color=PALETTE[2], markersize=8, zorder=3)
        axes.annotate(
            "chosen threshold", (chosen[0] / 1e6, chosen[1]), (0, 8), textcoords="offset points", ha="center",
            va="bottom", fontsize=8, color=PALETTE[2],
        )  # fmt: skip
        axes.axvline(plain / 1e6, color=INK, linewidth=0.8)
        axes.annotate(
            "network without heads", (plain / 1e6, 0.03), (-3, 0), xycoords=("data", "axes fraction"),
            textcoords="offset points", rotation=90, ha="right", va="bottom", fontsize=8,
        )  # fmt: skip
        axes.margins(0.12)
        axes.set(
            xlabel="million multiply-adds an image, mean", ylabel="test accuracy (%)", title="early exits, by threshold"
        )
        content = render(figure, "svg")
    write_bytes(path, content)
