"""What a page says first and in the largest type: a run's numbers, or who ended where."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from reports.columns import BEST, FINAL, HEAD_PARAMETERS, MEMORY, PARAMETERS, SPEED, TRAIN_TIME, short_count
from reports.groups import Group, Spread
from reports.looks import Look
from reports.markup import in_page_colours
from reports.runs import Run

_BORDERS = {"-": "solid", "--": "dashed", ":": "dotted", "-.": "double"}


def tiles(run: Run) -> str:
    """The numbers of a run, the accuracy after the last epoch first."""
    heads = run.number(HEAD_PARAMETERS.key)
    chosen, epoch = run.text("chosen_on"), run.text("best_epoch")
    rows = [
        ("test accuracy, last epoch", _percent(run.number(FINAL.key)), ""),
        (
            "best test accuracy",
            _percent(run.number(BEST.key)),
            ", ".join([f"epoch {epoch}"] * bool(epoch) + [f"chosen on {chosen}"] * bool(chosen)),
        ),
        (
            "parameters",
            short_count(run.number(PARAMETERS.key)),
            f"and {short_count(heads)} in heads, for training only" if heads else "",
        ),
        ("training", TRAIN_TIME.show(run.number(TRAIN_TIME.key)), "without evaluation"),
        ("throughput", SPEED.show(run.number(SPEED.key)), "images/s, in training"),
        ("peak memory", MEMORY.show(run.number(MEMORY.key)), ""),
    ]
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><small>{escape(note)}</small></div>"
        for name, value, note in rows
    )
    return f'<dl class="tiles">{items}</dl>\n'


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} %"


def lead(groups: Sequence[Group]) -> str:
    """Who ended highest and by how much, in a sentence; and whether the runs allow to say so."""
    found = [(group, final) for group in groups if (final := group.spread(FINAL.key))]
    if not found:
        return "No run has been tested yet."
    (best, first), *others = found
    sentence = f"{best.label}: {_spread(first)} test accuracy after the last epoch"
    if not others:
        return f"{sentence}."
    second, final = others[0]
    sentence += f", {first.mean - final.mean:.2f} points above {second.label}."
    tied = [group.label for group, other in others if other.high >= first.low]
    if tied:
        return f"{sentence} A tie by these runs: the range of {_listed(tied)} reaches into that of {best.label}."
    if first.count == 1 or final.count == 1:
        return f"{sentence} Not every group has a second seed, so how much of it is chance is not known."
    return sentence


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _spread(value: Spread) -> str:
    runs = f" ± {value.deviation:.2f} ({value.count} runs)" if value.count > 1 else " (1 run)"
    return f"{value.mean:.2f} %{runs}"


def ranking(groups: Sequence[Group], looks: Sequence[Look]) -> str:
    """A row for each group, the best first: its mean as a point, the range of its runs as a bar, and the numbers."""
    found = [(look, final) for group, look in zip(groups, looks, strict=True) if (final := group.spread(FINAL.key))]
    if not found:
        return ""
    low, high = min(final.low for _, final in found), max(final.high for _, final in found)
    room = 0.04 * (high - low) or 1.0
    low, high = low - room, high + room

    def place(value: float) -> float:
        return 100 * (value - low) / (high - low)

    rows = ""
    for look, final in found:
        spread = f" <small>± {final.deviation:.2f}</small>" if final.count > 1 else ""
        colour = in_page_colours(look.colour)
        rows += (
            f'<li data-series="{look.number}" style="--colour: {colour}"><span>{escape(look.title)}</span>'
            f'<span class="track"><i style="left: {place(final.low):.2f}%; width: '
            f'{place(final.high) - place(final.low):.2f}%"></i><b style="left: {place(final.mean):.2f}%"></b></span>'
            f"<strong>{final.mean:.2f} %{spread}</strong></li>\n"
        )
    return (
        f'<ol class="ranking">{rows}</ol>\n<p class="note">Test accuracy after the last epoch: the mean over the runs '
        f"of a group, and their range. The axis goes from {low:.2f} to {high:.2f} %.</p>\n"
    )


def toggles(looks: Sequence[Look]) -> str:
    """The legend of all figures below, whose entries show and hide their group in figures and tables."""
    buttons = "".join(
        f'<button data-series="{look.number}" aria-pressed="true" style="--colour: {in_page_colours(look.colour)}; '
        f'--line: {_BORDERS[look.style]}">{escape(look.title)}</button>'
        for look in looks
    )
    return (
        f'<div class="toggles" role="group" aria-label="show or hide">{buttons}<button class="all">all</button></div>\n'
    )
