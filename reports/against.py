"""Accuracy against the numeric setting with the most values, such as a learning rate; one line per rest of settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from reports.canvas import CARD, canvas
from reports.files import finite
from reports.groups import Group, Spread, differing, group_runs, label_of
from reports.looks import LEGEND_WIDTH, legend, looks_of, plot_spread
from reports.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIN_VALUES = 3  # of the setting, for a line to be drawn
LOG_RATIO = 20  # of the largest value to the smallest, from which the axis is logarithmic


def varied_number(groups: Sequence[Group]) -> str | None:
    """The setting with the most values, all of them numbers, among those in which groups differ; None without one."""
    values = {name: {group.settings.get(name) for group in groups} for name in differing([g.settings for g in groups])}
    numbers = {name: len(found) for name, found in values.items() if all(finite(value) is not None for value in found)}
    name = max(numbers, key=lambda key: numbers[key], default=None)
    return name if name is not None and numbers[name] >= MIN_VALUES else None


def against_figure(runs: Sequence[Run], *, card: bool = False) -> Figure | None:
    """Final test accuracy over the values of `varied_number`, for a file or as a card; None without such a setting."""
    groups = group_runs(runs)
    name = varied_number(groups)
    if name is None:
        return None
    rest = [replace(group, settings={k: v for k, v in group.settings.items() if k != name}) for group in groups]
    names = differing([group.settings for group in rest])
    labels: dict[str, str] = {}
    lines: dict[str, dict[float, Spread]] = {}
    for group, bare in zip(groups, rest, strict=True):
        value, found = finite(group.settings[name]), group.spread("final_test_accuracy")
        if value is not None and found is not None:
            key = repr(sorted(bare.settings.items()))
            labels[key] = label_of(bare, names)
            lines.setdefault(key, {})[value] = found
    lines = {key: dict(sorted(line.items())) for key, line in lines.items() if len(line) >= MIN_VALUES}
    return _draw(lines, [labels[key] for key in lines], name, card=card) if lines else None


def _draw(lines: dict[str, dict[float, Spread]], labels: Sequence[str], name: str, *, card: bool) -> Figure:
    looks = [look._replace(number=None) for look in looks_of(labels)]  # these lines are no groups
    with canvas(*(CARD if card else (9.0, 3.6 + 0.2 * len(lines) / 3))) as figure:
        axes = figure.subplots()
        for line, look in zip(lines.values(), looks, strict=True):
            plot_spread(axes, line, look, marker=look.marker, linestyle=look.style)
        values = sorted({value for line in lines.values() for value in line})
        if values[0] > 0 and values[-1] / values[0] >= LOG_RATIO:
            axes.set_xscale("log")
        if len(values) <= (7 if card else 12):
            axes.set_xticks(values, [f"{value:g}" for value in values])
            axes.set_xticks([], minor=True)
        axes.set(xlabel=name, title="final test accuracy (%)")
        if len(lines) > 1:
            legend(figure, looks, markers=False, width=50 if card else LEGEND_WIDTH)
    return figure
