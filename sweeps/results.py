"""A sweep in the end: a table for the terminal, one for spreadsheets, and figures."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from loguru import logger
from optuna.trial import FrozenTrial, TrialState

from consts import ACCURACY, REPORT_FILE
from reports.runs import find_runs
from sweeps.check import words_of
from sweeps.display import show_value, show_values
from sweeps.study import BEST_EPOCH, BEST_VALUE, MESSAGE, RUN, SweepStudy
from utils import duration, write_text

STATES = {
    TrialState.COMPLETE: "done", TrialState.PRUNED: "stopped early", TrialState.FAIL: "failed",
    TrialState.RUNNING: "open", TrialState.WAITING: "waiting",
}  # fmt: skip
MAX_SHOWN = 20  # rows in the terminal, and runs side by side on the page; the CSV has all


def summarise(study: SweepStudy) -> str:
    """Write ``trials.csv`` and the figures, and return the table."""
    if not study.trials:
        return "No trial was started."
    write_text(study.folder.path / "trials.csv", _csv(study))
    written = ["trials.csv"]
    try:
        written += _draw(study)
    except Exception as error:  # a picture is never worth a sweep
        logger.warning(f"cannot draw the sweep: {error}")
    lines = [table(study), "", *_last_words(study), "Written:"]
    return "\n".join([*lines, *(f"  {study.folder.path / name}" for name in written)])


def _draw(study: SweepStudy) -> list[str]:
    """Write the figures, and a page with them and with the runs of the best trials side by side."""
    from reports.canvas import write_bytes
    from reports.overview import comparison_cards
    from reports.page import write_page
    from sweeps.figures import sweep_pictures

    pictures = sweep_pictures(study)
    for name, svg in pictures.items():
        write_bytes(study.folder.path / f"{name}.svg", svg.encode())
    folders = [study.folder.path / trial.user_attrs[RUN] for trial in study.ranked()[:MAX_SHOWN]]
    if not folders:
        return []
    runs = find_runs(folders)
    title, page = f"Sweep {study.folder.path.resolve().name}", study.folder.path / REPORT_FILE
    write_page(runs, page, title, pictures | (comparison_cards(runs) if len(runs) > 1 else {}), _above(study, page))
    return [*(f"{name}.svg" for name in pictures), REPORT_FILE]


def _above(study: SweepStudy, page: Path) -> str:
    """What the page shows first: who won, how to train it again, and all trials with links to their runs."""
    from reports.markup import Cell, command, link_to, texts

    trials = ordered(study)
    header, *rows = _rows(study, trials)
    linked = []
    for trial, (number, *others) in zip(trials, rows, strict=True):
        run = trial.user_attrs.get(RUN)
        link = link_to(study.folder.path / run / REPORT_FILE, page) if run else None
        linked.append([Cell(number, link=link), *map(Cell, others)])
    return (
        f'<p class="lead">{escape(winner(study))}</p>\n{command(_command(study, trials[0]))}'
        f"<h2>Trials</h2>\n{texts([[*map(Cell, header)], *linked])}"
    )


def winner(study: SweepStudy) -> str:
    """The best trial in a sentence, and those that reached the same value."""
    best, *others = study.ranked()
    metric, value = study.file.spec.metric.name, best.user_attrs[BEST_VALUE]
    unit = " %" if metric.endswith(ACCURACY) else ""
    sentence = (
        f"Trial {best.number} is the best of {len(study.ranked())}: {metric} {value:.4g}{unit} in epoch "
        f"{best.user_attrs[BEST_EPOCH]}, with {show_values(study.values_of(best))}."
    )
    tied = [str(trial.number) for trial in others if trial.user_attrs[BEST_VALUE] == value]
    if not tied:
        return sentence
    return f"{sentence} A tie: the same value was reached by trial{'s' * (len(tied) > 1)} {', '.join(tied)}."


def _command(study: SweepStudy, trial: FrozenTrial) -> str:
    return f"python main.py {shlex.join(words_of(study.file, study.values_of(trial)))}"


def ordered(study: SweepStudy) -> list[FrozenTrial]:
    """The best first; those without a value at the end, by number."""
    ranked = study.ranked()
    return ranked + [trial for trial in study.trials if trial not in ranked]


def table(study: SweepStudy) -> str:
    """Aligned text, a row for each trial."""
    trials = ordered(study)
    rows = _rows(study, trials[:MAX_SHOWN])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
    aligned.insert(1, "-" * len(aligned[0]))
    if len(trials) > MAX_SHOWN:
        aligned.append(f"... and {len(trials) - MAX_SHOWN} more in trials.csv")
    return "\n".join(aligned)


def _rows(study: SweepStudy, trials: Sequence[FrozenTrial]) -> list[list[str]]:
    """A heading, and a row for each trial."""
    header = ["trial", "state", study.file.spec.metric.name, "epoch", "time", *study.file.varied]
    rows = [[*_facts(trial), *map(show_value, study.values_of(trial).values())] for trial in trials]
    return [header, *(row + [""] * (len(header) - len(row)) for row in rows)]


def _facts(trial: FrozenTrial) -> list[str]:
    value, epoch = trial.user_attrs.get(BEST_VALUE), trial.user_attrs.get(BEST_EPOCH)
    seconds = trial.duration.total_seconds() if trial.duration else None
    return [
        str(trial.number),
        STATES[trial.state],
        "-" if value is None else f"{value:.4g}",
        "-" if epoch is None else str(epoch),
        "-" if seconds is None else duration(seconds),
    ]


def _last_words(study: SweepStudy) -> Iterator[str]:
    ranked = study.ranked()
    if ranked:
        yield winner(study)
        yield f"Best: trial {ranked[0].number}: {_command(study, ranked[0])}"
    for trial in study.trials:
        if MESSAGE in trial.user_attrs and trial.state == TrialState.FAIL:
            yield f"Trial {trial.number} failed: {trial.user_attrs[MESSAGE]}"


def _csv(study: SweepStudy) -> str:
    """One row a trial, the best first; values as they were given to the run."""
    names = list(study.file.varied)
    fixed = ["trial", "state", study.file.spec.metric.name, "best_epoch", "wall_s"]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [*fixed, *names, "run", "message"], lineterminator="\n")
    writer.writeheader()
    for trial in ordered(study):
        row = {
            "trial": trial.number,
            "state": STATES[trial.state],
            study.file.spec.metric.name: trial.user_attrs.get(BEST_VALUE),
            "best_epoch": trial.user_attrs.get(BEST_EPOCH),
            "wall_s": round(trial.duration.total_seconds(), 1) if trial.duration else None,
            "run": trial.user_attrs.get(RUN),
            "message": trial.user_attrs.get(MESSAGE),
        }
        writer.writerow(row | study.values_of(trial))
    return buffer.getvalue()
