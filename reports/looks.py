"""How groups of runs look in every figure that compares them: colour, marker, line style, legend, mean and range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from reports.canvas import MARKERS, PALETTE, series
from reports.groups import Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE_STYLES = ("-", "--", ":", "-.")
LEGEND_WIDTH = 110  # characters that fit below a figure of README width


class Look(NamedTuple):
    """The look of a group: its place among the groups (None for a line of another kind), title, and what is drawn."""

    number: int | None
    title: str
    colour: str
    marker: str
    style: Any  # as matplotlib names it


def looks_of(titles: Sequence[str]) -> list[Look]:
    """A look for each; when the colours start again, markers start again one further, and lines are dashed."""
    count = len(titles)
    colours = islice(cycle(PALETTE), count)
    markers = [MARKERS[(index + index // len(PALETTE)) % len(MARKERS)] for index in range(count)]
    styles = islice(cycle(style for style in LINE_STYLES for _ in PALETTE), count)
    return [Look(*fields) for fields in zip(range(count), titles, colours, markers, styles, strict=True)]


def legend(figure: Figure, looks: Sequence[Look], *, markers: bool, width: int = LEGEND_WIDTH) -> None:
    """Titles below the figure, beside their markers or line styles; ``width`` is that of a line, in characters."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=look.colour, marker=look.marker if markers else "") for look in looks]
    for handle, look in zip(handles, looks, strict=True):
        handle.set_linestyle("-" if markers else look.style)
    titles = [look.title for look in looks]
    figure.legend(handles, titles, loc="outside lower center", ncols=legend_columns(titles, width))


def legend_columns(titles: Sequence[str], width: int = LEGEND_WIDTH) -> int:
    """How many titles fit beside each other."""
    return max(1, min(len(titles), width // (max(map(len, titles)) + 6)))


def plot_spread(axes: Axes, values: Mapping[Any, Spread], look: Look, *, marker: str = "", **line: Any) -> None:
    """The mean over runs as a line, from the lowest to the highest run as a band."""
    means = [value.mean for value in values.values()]
    x, gid = list(values), series(look.number)
    axes.plot(x, means, color=look.colour, marker=marker, gid=gid, label=look.title, **({"linewidth": 1.8} | line))
    low, high = [value.low for value in values.values()], [value.high for value in values.values()]
    if low != high:
        axes.fill_between(x, low, high, color=look.colour, alpha=0.18, linewidth=0, gid=gid)
