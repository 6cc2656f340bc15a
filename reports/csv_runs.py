"""Read runs from a table that a report wrote (`reports.table`) or a study keeps (`reports.records`)."""

from __future__ import annotations

import contextlib
import csv
import json
from pathlib import Path
from typing import Any

from consts import ACCURACY, TEST, metric_name
from reports.columns import COLUMNS
from reports.files import MAX_BLOCKS, finite, printable
from reports.records import BLOCKS, FACTS, MADE_BY, SETTINGS
from reports.runs import Run
from utils import UsageError, UserError

_FACTS = {"status", "method", "model", "dataset", *(column.key for column in COLUMNS), *FACTS}
_HIDDEN = _FACTS | {"run", "group", "problems", BLOCKS, SETTINGS, *MADE_BY}


def read_csv(path: Path) -> list[Run]:
    """The runs of a table, without their curves.

    Raises:
        UsageError: it is not a table of runs.
        UserError: it cannot be read.
    """
    shown = printable(str(path))
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except OSError as error:
        raise UserError(f"{shown}: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise UsageError(f"{shown}: not a table of runs ({printable(str(error))})") from None
    if not rows or not {"run", "method"} <= rows[0].keys():
        raise UsageError(f"{shown}: not a table of runs (it has no rows, or not the columns run and method)")
    return [_run(path, number, row) for number, row in enumerate(rows)]


def _run(path: Path, number: int, row: dict[str, Any]) -> Run:
    known = {str(name): _value(text) for name, text in row.items() if isinstance(text, str) and text}
    summary = {name: value for name, value in known.items() if name in _FACTS}
    blocks = [finite(known.get(metric_name(TEST, ACCURACY, index))) for index in range(MAX_BLOCKS)]
    while blocks and blocks[-1] is None:
        blocks.pop()
    blocks = blocks or [finite(_value(word)) for word in str(row.get(BLOCKS) or "").split()]
    config = {name: value for name, value in known.items() if name not in _HIDDEN and "/" not in name}
    config |= _settings(path, row.get(SETTINGS))
    config |= {name: known[name] for name in ("method", "model", "dataset", "seed") if name in known}
    problems = tuple(filter(None, str(row.get("problems") or "").split("; ")))
    name = printable(str(row["run"] or f"row {number + 1}"))
    return Run(path / str(number), name, summary | {BLOCKS: blocks}, config, [], [], problems)


def _settings(path: Path, text: str | None) -> dict[str, Any]:
    """All settings of a run, from the one cell that holds them."""
    if not text:
        return {}
    with contextlib.suppress(ValueError):
        if isinstance(settings := json.loads(text), dict):
            return settings
    raise UsageError(f"{printable(str(path))}: not a table of runs (a cell of its column {SETTINGS} is damaged)")


def _value(text: str) -> Any:
    """Parse a number, a boolean or text."""
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text
