"""Common style of all figures, and writing them to files, reproducibly to the byte.

matplotlib is imported inside functions, so that training does not wait for it. Its object interface is used instead
of ``pyplot``, which would open windows and keep figures in memory.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID, PAPER = "#24292f", "#d8dee4", "#ffffff"
# Okabe & Ito's colour-blind-safe palette (jfly.uni-koeln.de/color), without black and yellow, which are invisible on a
# dark or a light background.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P")
PNG_DPI = 200  # twice the width of a README, for dense screens
FONT_PT = 9.0
CARD = (4.0, 2.8)  # inches of a figure on a page: three beside each other on a laptop, one on a phone, in one type size

_STYLE: dict[str, Any] = {
    "svg.hashsalt": "beyond-backprop",  # otherwise identifiers are random
    "svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"],  # text stays text; a page sets it in its own font
    "text.parse_math": False,  # a dollar in a run's name is a dollar
    "font.size": FONT_PT, "axes.titlesize": FONT_PT, "legend.fontsize": FONT_PT,
    "axes.labelsize": FONT_PT, "xtick.labelsize": FONT_PT, "ytick.labelsize": FONT_PT,
    "axes.titlelocation": "left",
    "figure.facecolor": PAPER, "axes.facecolor": PAPER, "savefig.facecolor": PAPER,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.7, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
    "legend.frameon": False, "lines.linewidth": 1.8, "lines.markersize": 4.5,
}  # fmt: skip
_SERIES_ID = re.compile(r' id="series-(\d+)"')
_METADATA: dict[str, dict[str, None]] = {  # a date or a version would change a committed figure without reason
    "svg": dict.fromkeys(("Date", "Creator", "Format", "Type")),
    "png": {"Software": None},
}


@contextmanager
def _style() -> Iterator[None]:
    """The style of all figures, independent of the user's own matplotlibrc."""
    import matplotlib.style

    with matplotlib.style.context(["default", _STYLE]):
        yield


@contextmanager
def canvas(width: float, height: float) -> Iterator[Figure]:
    """An empty figure of ``width`` by ``height`` inches; drawing inside the ``with`` has the common style."""
    from matplotlib.figure import Figure

    with _style():
        yield Figure(figsize=(width, height), layout="constrained")


def render(figure: Figure, kind: str, *, values: bool = False) -> bytes:
    """The figure as an ``svg`` or ``png`` file; an SVG with the ``values`` of its named curves serves a page."""
    buffer = io.BytesIO()
    with _style():
        figure.savefig(buffer, format=kind, dpi=PNG_DPI, metadata=_METADATA[kind])
    if kind != "svg":
        return buffer.getvalue()
    svg = _SERIES_ID.sub(r' data-series="\1"', buffer.getvalue().decode())  # several parts may belong to one series
    if values and (found := curve_values(figure)):
        svg = svg.replace("<svg ", f'<svg data-values="{escape(json.dumps(found))}" ', 1)
    return svg.encode()


def series(number: int | None) -> str | None:
    """The ``gid`` of every part of series ``number`` of a figure, by which a page shows and hides it."""
    return None if number is None else f"series-{number}"


def curve_values(figure: Figure) -> list[dict[str, Any]]:
    """Of every panel with labelled curves its box, its x axis' name, and of each curve the points as they are read.

    Places are in the units of the SVG: points from the upper left corner.
    """
    scale, height = 72 / figure.dpi, 72 * figure.get_size_inches()[1]
    panels = []
    for axes in figure.axes:
        curves = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
        form = "{:.2f} %" if "(%)" in axes.get_ylabel() + axes.get_title(loc="left") else "{:.4g}"
        found = []
        for line in curves:
            values: Any = line.get_xydata()
            places = [(round(x * scale, 1), round(height - y * scale, 1)) for x, y in axes.transData.transform(values)]
            points = [[*place, f"{x:.6g}", form.format(y)] for place, (x, y) in zip(places, values, strict=True)]
            match = _SERIES_ID.fullmatch(f' id="{line.get_gid()}"')
            number = int(match[1]) if match else None
            found.append({"series": number, "name": line.get_label(), "colour": line.get_color(), "points": points})
        if found:
            (left, low), (right, high) = axes.get_window_extent().get_points()
            box = [
                round(number, 1)
                for number in (left * scale, height - high * scale, right * scale, height - low * scale)
            ]
            panels.append({"box": box, "x": axes.get_xlabel(), "curves": found})
    return panels


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_write(path) as stream:
        stream.write(content)


def integer_axis(axes: Axes, label: str) -> None:
    """Label the x axis, with ticks at integers only."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def ratio_axis(axes: Axes) -> None:
    """A logarithmic y axis with plain numbers; of its minor ticks a longer axis labels 2 and 5, the longest none."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    plain = FuncFormatter(lambda value, position: f"{value:g}")
    axes.yaxis.set_major_formatter(plain)
    if high >= 8 * low:
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.yaxis.set_minor_formatter(plain if high < 80 * low else NullFormatter())


def say_nothing_yet(axes: Axes, text: str) -> None:
    """Show ``text`` in place of the missing curves."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center")
    axes.set(xticks=[], yticks=[])


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write the names of curves beside their right ends, moved apart where they would overlap.

    Args:
        axes: with the curves already drawn.
        ends: last value, text and colour of each curve.
    """
    height = axes.yaxis.get_transform().transform  # of a logarithmic axis the logarithm
    low, high = height(axes.get_ylim())
    figure = axes.get_figure(root=True)
    assert figure is not None  # only for the type checker
    height_pt = 0.75 * 72 * figure.get_size_inches()[1]  # the axes take about three quarters of the figure
    ends = sorted(ends)
    places = spread_out(
        [(float(height(value)) - low) / (high - low) for value, _, _ in ends], 1.2 * FONT_PT / height_pt
    )
    for place, (_, text, colour) in zip(places, ends, strict=True):
        axes.text(1.015, place, text, color=colour, transform=axes.transAxes, va="center", ha="left")


def spread_out(places: Sequence[float], gap: float) -> list[float]:
    """Move ascending places apart until neighbours are ``gap`` apart, and keep them from 0 to 1 if there is room."""
    upward, downward = list(places), list(places)
    for index in range(1, len(places)):
        upward[index] = max(upward[index], upward[index - 1] + gap)
        downward[-index - 1] = min(downward[-index - 1], downward[-index] - gap)
    moved = [(up + down) / 2 for up, down in zip(upward, downward, strict=True)]  # a crowd stays where its middle was
    for index in range(len(moved)):
        moved[index] = max(moved[index], gap * index)
    for index in range(len(moved)):
        moved[-index - 1] = min(moved[-index - 1], max(1.0, gap * (len(moved) - 1)) - gap * index)
    return moved
