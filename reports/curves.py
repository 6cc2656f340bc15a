"""Parts shared by several figures: a curve by epoch, its axes, and the colours of blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from reports.canvas import PALETTE, integer_axis, label_ends, say_nothing_yet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NO_VALUES = "no values to show yet"
MAX_MARKED_EPOCHS = 30  # with more points, markers hide the curve


def plot(axes: Axes, curve: Mapping[int, float], colour: str, name: str) -> None:
    """Draw a curve by epoch or step."""
    marker = "o" if len(curve) <= MAX_MARKED_EPOCHS else ""
    axes.plot(list(curve), list(curve.values()), color=colour, marker=marker, markersize=3, label=name)


def finish(axes: Axes, ends: Sequence[tuple[float, str, str]], title: str, along: str = "epoch") -> None:
    """Write the figure's title, the name of its x axis, and a label at the end of each curve."""
    axes.set_title(title)
    integer_axis(axes, along)
    if ends:
        label_ends(axes, ends)
    elif not axes.has_data():
        say_nothing_yet(axes, NO_VALUES)


def ramp(count: int) -> list[str]:
    """Colours from the first block to the last, of even lightness, visible on a dark and on a light page."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    colours = LinearSegmentedColormap.from_list("blocks", [PALETTE[0], "#a8518f", PALETTE[1]])
    return [to_hex(colours(block / max(1, count - 1))) for block in range(count)]
