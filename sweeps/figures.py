"""Figures of a sweep: every trial as a line across its parameters, and how much each parameter matters.

Optuna's own plots were tried: they need plotly or matplotlib's global state, and neither has the look of our reports.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from reports.canvas import CARD, GRID, INK, PALETTE, PAPER, canvas, render
from sweeps.display import show_value
from sweeps.space import Parameter, Scalar
from sweeps.study import BEST_VALUE, SweepStudy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MIN_FOR_IMPORTANCE = 4  # trials; with fewer the estimate says nothing
_MARGIN = 0.04  # of an axis, beyond its lowest and its highest value


def sweep_pictures(study: SweepStudy) -> dict[str, str]:
    """Name and SVG text of the figures that the trials so far allow."""
    figures = {}
    if len(study.ranked()) > 1:
        figures["parallel"] = parallel_figure(study)
    if importances := importance(study):
        figures["importance"] = importance_figure(importances, study)
    return {name: render(figure, "svg").decode() for name, figure in figures.items()}


def importance(study: SweepStudy) -> dict[str, float]:
    """Share of each varied parameter in what tells good trials from others (PED-ANOVA, arXiv 2304.10255).

    Empty with one parameter, which has it all, and with too few finished trials.
    """
    done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    if len(study.file.varied) < 2 or len(done) < MIN_FOR_IMPORTANCE:
        return {}
    return optuna.importance.get_param_importances(study.optuna)


def parallel_figure(study: SweepStudy) -> Figure:
    """One vertical axis for each parameter and one for the metric; a trial is a line, the best ones dark."""
    trials = list(reversed(study.ranked()))  # the best is drawn last, on top
    names = list(study.file.varied)
    with canvas(max(CARD[0], 1.6 * (len(names) + 1)), 3.2) as figure:
        axes = figure.subplots()
        scales = [_parameter_scale(axes, x, study.file.varied[name]) for x, name in enumerate(names)]
        values = [trial.user_attrs[BEST_VALUE] for trial in trials]
        scales.append(_number_scale(axes, len(names), min(values), max(values)))
        for rank, trial in enumerate(trials):
            places = [scale(value) for scale, value in zip(scales, _coordinates(study, trial), strict=True)]
            _draw_trial(axes, places, rank / max(1, len(trials) - 1), trial.state == TrialState.COMPLETE)
        goal = "higher is better" if study.is_maximized else "lower is better"
        titles = [*names, f"{study.file.spec.metric.name}\n({goal})"]
        axes.set_xticks(range(len(titles)), titles)
        axes.set(yticks=[], ylim=(-0.04, 1.04), xlim=(-0.45, len(names) + 0.45))
        axes.grid(visible=False)
        axes.tick_params(axis="x", length=0)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        stopped = any(trial.state != TrialState.COMPLETE for trial in trials)
        axes.set_title(f"{len(trials)} trials, the better the darker" + (", stopped early: dashed" if stopped else ""))
    return figure


def _coordinates(study: SweepStudy, trial: FrozenTrial) -> list[Scalar]:
    return [*study.values_of(trial).values(), trial.user_attrs[BEST_VALUE]]


def _draw_trial(axes: Axes, places: Sequence[float], goodness: float, finished: bool) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colour = LinearSegmentedColormap.from_list("trials", [GRID, "#7fb4d6", PALETTE[0], "#003a63"])(goodness)
    axes.plot(
        range(len(places)), places, color=colour, linewidth=1 + goodness, linestyle="-" if finished else "--",
        marker="o", markersize=3.5, zorder=2 + goodness,
    )  # fmt: skip


def _parameter_scale(axes: Axes, x: int, parameter: Parameter) -> Callable[[Any], float]:
    """Draw the axis of a parameter at ``x``; returns a function from a value to its height from 0 to 1."""
    numbers = all(isinstance(choice, (int, float)) and not isinstance(choice, bool) for choice in parameter.choices)
    if parameter.choices and not numbers:
        places = {choice: (index + 0.5) / len(parameter.choices) for index, choice in enumerate(parameter.choices)}
        _draw_axis(axes, x, [(place, show_value(choice)) for choice, place in places.items()])
        return lambda value: places[value]
    if parameter.choices:
        low, high = min(map(float, parameter.choices)), max(map(float, parameter.choices))
        log = low > 0 and high / low > 20  # values like 0.001, 0.01, 0.1 lie evenly on a logarithmic axis
        return _number_scale(axes, x, low, high, log=log, ticks=[float(choice) for choice in parameter.choices])
    return _number_scale(axes, x, parameter.low, parameter.high, log=parameter.log)


def _number_scale(
    axes: Axes, x: int, low: float, high: float, *, log: bool = False, ticks: Sequence[float] | None = None
) -> Callable[[Any], float]:
    bend: Callable[[float], float] = math.log if log else float
    span = (bend(high) - bend(low)) or 1.0

    def place(value: Any) -> float:
        return _MARGIN + (1 - 2 * _MARGIN) * (bend(float(value)) - bend(low)) / span

    if ticks is None:
        middle = math.sqrt(low * high) if log else (low + high) / 2
        ticks = [low] if low == high else [low, middle, high]
    _draw_axis(axes, x, [(place(tick), f"{tick:.3g}") for tick in ticks])
    return place


def _draw_axis(axes: Axes, x: int, labels: Sequence[tuple[float, str]]) -> None:
    from matplotlib.patheffects import withStroke

    axes.axvline(x, color=INK, linewidth=0.8, zorder=1)
    halo = [withStroke(linewidth=2.5, foreground=PAPER)]  # lines run below the labels
    for place, text in labels:
        axes.annotate(
            text, (x, place), (-5, 0), textcoords="offset points", ha="right", va="center",
            path_effects=halo, zorder=5,
        )  # fmt: skip


def importance_figure(importances: dict[str, float], study: SweepStudy) -> Figure:
    """A bar for each parameter, the most important on top."""
    names = list(reversed(importances))
    count = sum(trial.state == TrialState.COMPLETE for trial in study.trials)
    with canvas(CARD[0], max(CARD[1], 1.0 + 0.36 * len(names))) as figure:
        axes = figure.subplots()
        axes.barh(names, [100 * importances[name] for name in names], color=PALETTE[0], height=0.6)
        for y, name in enumerate(names):
            axes.annotate(
                f"{100 * importances[name]:.0f} %", (100 * importances[name], y), (4, 0),
                textcoords="offset points", va="center",
            )  # fmt: skip
        axes.set(xlabel="importance (%)", xlim=(0, 120))
        axes.set_title(f"what tells good trials from others ({count} finished)", x=0)
        axes.grid(visible=False, axis="y")
    return figure
