"""A table of finished runs that is kept under version control: a line for each, with everything that made it.

A run folder is large and stays on the machine; its line is what a study keeps. It holds every setting, the commit and
the machine, so that groups, pages and the leaderboard can be made from it, and it is never computed twice.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from consts import COMMAND_FILE, DONE, ENVIRONMENT_FILE
from reports.columns import COLUMNS, plain
from reports.files import read_json
from reports.groups import BOOKKEEPING
from reports.runs import Run
from utils import UsageError, UserError, write_text

RECORDS = "results.csv"
SETTINGS, BLOCKS = "settings", "block_test_accuracy"
WORDS = ("status", "method", "model", "dataset")
FACTS = ("isolation", "blocks_alone", "chosen_on", "train_cpu_s", "machine")
MADE_BY = ("commit", "uncommitted_changes", "torch", "python", "config")
FIELDS = (
    "run", *WORDS, *(column.key for column in COLUMNS), BLOCKS, *FACTS, *MADE_BY, SETTINGS,
)  # fmt: skip


def add(runs: Sequence[Run], path: Path) -> int:
    """Add the finished runs that the table lacks, and return how many these are.

    Raises:
        UsageError: ``path`` is another kind of file.
        UserError: it cannot be read or written.
    """
    lines = _read(path) if path.exists() else []
    known = {line["run"] for line in lines}
    new = [line_of(run) for run in runs if run.text("status") == DONE and run.name not in known]
    if new:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*lines, *new])
        try:
            write_text(path, buffer.getvalue())
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from error
    return len(new)


def is_table(path: Path) -> bool:
    """Whether a file is such a table, by its first line."""
    with contextlib.suppress(OSError, ValueError), path.open(encoding="utf-8") as stream:
        return stream.readline().rstrip("\n") == ",".join(FIELDS)
    return False


def _read(path: Path) -> list[dict[str, str]]:
    if not is_table(path):
        raise UsageError(f"{path}: not a table that --record made (its columns differ); give another file")
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def line_of(run: Run) -> dict[str, Any]:
    """The line of a run."""
    facts = read_json(run.folder / ENVIRONMENT_FILE, [])
    packages = facts.get("packages")
    facts |= {"torch": packages.get("torch")} if isinstance(packages, dict) else {}
    facts["machine"] = f"{facts.get('device_name')}, {facts.get('num_threads')} of {facts.get('num_cpus')} threads"
    with contextlib.suppress(OSError):
        facts["config"] = " ".join(re.findall(r"--config[= ](\S+)", (run.folder / COMMAND_FILE).read_text("utf-8")))
    hidden = BOOKKEEPING - {"seed", "diagnostics"}
    settings = {name: value for name, value in run.config.items() if name not in hidden}
    line: dict[str, Any] = {"run": run.name} | {word: run.text(word) for word in WORDS}
    line |= {column.key: plain(run.number(column.key)) for column in COLUMNS}
    line |= {name: run.text(name) or facts.get(name, "") for name in FACTS}
    line[BLOCKS] = " ".join("-" if value is None else f"{value:.2f}" for value in run.block_accuracies())
    return line | {name: facts.get(name, "") for name in MADE_BY} | {SETTINGS: json.dumps(settings, sort_keys=True)}
