"""Tables of runs: one row per group for the terminal, one row per run as CSV."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from consts import ACCURACY, DONE, TEST, metric_name
from reports.blocks import near_back_propagation
from reports.columns import (
    BEST,
    COLUMNS,
    FINAL,
    HEAD_PARAMETERS,
    MEMORY,
    PARAMETERS,
    SPEED,
    TRAIN_TIME,
    Column,
    plain,
    progress,
    short_count,
    show_blocks,
    status,
)
from reports.groups import Group, differing, group_runs
from reports.runs import Run
from utils import write_text

WIDTH = 100  # characters of a terminal's line
MIN_LABEL_WIDTH = 12
GAP = "  "
HEADER = (
    ("", "best", "final", "test % by", "parameters", "train", "", "peak"),
    ("run", "test %", "test %", "block", "net+heads", "time", "img/s", "memory"),
)


def comparison_table(runs: Sequence[Run]) -> str:
    """Aligned text, one row for each group of runs that differ only in the seed, followed by notes on problems."""
    groups = group_runs(runs)
    cells = [*HEADER, *(group_cells(group) for group in groups)]
    widths = [max(map(len, column)) for column in list(zip(*cells, strict=True))[1:]]
    room = max(MIN_LABEL_WIDTH, WIDTH - sum(widths) - len(GAP) * len(widths))
    labels = [textwrap.wrap(row[0].replace("=", "= "), room) or [""] for row in cells]
    width = max(len(line) for label in labels for line in label)
    lines = []
    for label, row in zip(labels, cells, strict=True):
        numbers = (f"{cell:>{space}}" for cell, space in zip(row[1:], widths, strict=True))
        lines += [GAP.join([label[0].ljust(width), *numbers]), *label[1:]]
    lines.insert(len(HEADER), "-" * len(lines[0]))
    return "\n".join([*lines, *_notes(groups)])


def write_csv(runs: Sequence[Run], path: Path) -> None:
    """One row a run: plain numbers in the units of ``summary.json``, and the settings in which the runs differ."""
    pairs = [(group, run) for group in group_runs(runs) for run in group.runs]
    num_blocks = max((len(run.block_accuracies()) for run in runs), default=0)
    blocks = [metric_name(TEST, ACCURACY, block) for block in range(num_blocks)]
    words = ["status", "method", "model", "dataset"]
    fixed = ["run", "group", *words, *(column.key for column in COLUMNS), *blocks]
    settings = [name for name in differing([run.config for run in runs], absence_counts=True) if name not in fixed]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [*fixed, *settings, "problems"], lineterminator="\n")
    writer.writeheader()
    for group, run in pairs:
        row: dict[str, Any] = {name: run.config.get(name) for name in settings}
        row |= {"run": run.name, "group": group.label, "problems": "; ".join(run.problems)}
        row |= {word: run.text(word) for word in words} | dict(zip(blocks, run.block_accuracies(), strict=False))
        writer.writerow(row | {column.key: plain(run.number(column.key)) for column in COLUMNS})
    write_text(path, buffer.getvalue())


def group_cells(group: Group) -> tuple[str, ...]:
    """A group's row, in the order of ``HEADER``."""
    means = {column: value.mean for column in COLUMNS if (value := group.spread(column.key))}
    heads = means.get(HEAD_PARAMETERS)
    return (
        group.title,
        _percent(group, BEST),
        _percent(group, FINAL),
        show_blocks([None if value is None else value.mean for value in group.block_accuracies()]),
        short_count(means.get(PARAMETERS)) + ("" if heads is None else f"+{short_count(heads)}"),
        *(column.show(means.get(column)) for column in (TRAIN_TIME, SPEED, MEMORY)),
    )


def _percent(group: Group, column: Column) -> str:
    value = group.spread(column.key)
    text = column.show(value.mean if value else None)
    return f"{text} ±{value.deviation:.2f}" if value and value.count > 1 else text


def _notes(groups: Sequence[Group]) -> Iterator[str]:
    if any(len(group.counted) > 1 for group in groups):
        yield "Rows of several runs: mean, ± sample standard deviation over the runs."
    for group in groups:
        for run in group.runs:
            remarks = [] if status(run) == DONE else [f"{status(run)}, epochs {progress(run)}"]
            remarks += [] if run in group.counted else ["not in the mean"]
            remarks += [*run.problems, *near_back_propagation(run)]
            if remarks:
                yield f"{run.name}: " + "; ".join(remarks)
