"""Load run folders; missing or damaged files are listed as problems instead of raising."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from consts import CODE_SETTINGS, CONFIG_FILE, METRICS_FILE, RUNNING, SUMMARY_FILE, digest_name
from reports.files import MAX_BLOCKS, Line, finite, printable, read_json, read_metrics, read_yaml, summary_of
from utils import UsageError, UserError, short_name

SEARCH_DEPTH = 2  # experiments/RUN and experiments/studies/RUN are found from experiments/

MAX_POINTS = 400  # of a curve by step; a figure of a page has as many pixels


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        folder: its path.
        name: the folder's name, printable characters only.
        summary: ``summary.json``; missing values, and outdated ones of a running run, are taken from the metrics.
        config: every setting by the name of its flag.
        steps: lines of ``metrics.jsonl`` that were written within an epoch.
        epochs: its lines that were written at the end of an epoch.
        problems: what is missing or damaged, one sentence each.
    """

    folder: Path
    name: str
    summary: dict[str, Any]
    config: dict[str, Any]
    steps: list[Line]
    epochs: list[Line]
    problems: tuple[str, ...]

    def text(self, key: str) -> str:
        """A value of the summary, or else of the settings, as printable text; empty where there is none."""
        value = self.summary.get(key, self.config.get(key))
        return "" if value is None else printable(str(value))

    def number(self, key: str) -> float | None:
        """A value of the summary, or else of the settings; None unless it is a finite number."""
        return finite(self.summary.get(key, self.config.get(key)))

    def block_accuracies(self) -> list[float | None]:
        """Test accuracy in percent by block; None for a block without a classifier, empty where nothing is known."""
        values = self.summary.get("block_test_accuracy")
        return [finite(value) for value in values[:MAX_BLOCKS]] if isinstance(values, list) else []

    def curve(self, metric: str) -> dict[int, float]:
        """Finite values of a metric by epoch."""
        found = {int(line["epoch"]): finite(line.get(metric)) for line in self.epochs}
        return {epoch: value for epoch, value in found.items() if value is not None}

    def steps_curve(self, key: str) -> dict[int, float]:
        """Finite values of a metric by step, of evenly spaced lines where there are very many."""
        found = {step: value for line in self.steps if (step := finite(line.get("step"))) is not None
                 and (value := finite(line.get(key))) is not None}  # fmt: skip
        every = 1 + len(found) // MAX_POINTS
        return {int(step): value for step, value in list(found.items())[::every]}


def load_run(folder: Path) -> Run:
    """Read a run folder, finished or not; `Run.problems` says what could not be read."""
    problems: list[str] = []
    summary = read_json(folder / SUMMARY_FILE, problems)
    config = _as_shown(read_yaml(folder / CONFIG_FILE, problems))
    steps, epochs = read_metrics(folder / METRICS_FILE, problems)
    derived = summary_of(steps, epochs)
    if summary.get("status") == RUNNING:  # numbers in the summary are then those of before the run was resumed
        summary |= derived
    else:
        summary = derived | {key: value for key, value in summary.items() if value is not None}
    return Run(folder, printable(folder.resolve().name), summary, config, steps, epochs, tuple(problems))


def _as_shown(config: dict[str, Any]) -> dict[str, Any]:
    """Settings in which the user's own code has a name in place of its path, and a digest that can be read."""
    shown = {name: short_name(config[name]) for name in CODE_SETTINGS if isinstance(config.get(name), str)}
    digests = {key: str(config[key])[:8] for key in map(digest_name, CODE_SETTINGS) if key in config}
    return config | shown | digests


def find_runs(paths: Sequence[Path]) -> list[Run]:
    """Load the runs at ``paths``, each of them a run folder or a folder that holds some, up to two levels deep.

    Raises:
        UsageError: a path does not exist or holds no run.
        UserError: a path cannot be read.
    """
    folders: dict[Path, Path] = {}
    for path in paths:
        shown = printable(str(path))
        if not path.is_dir():
            raise UsageError(f"{shown}: " + ("not a folder" if path.exists() else "no such folder"))
        try:
            found = list(_run_folders(path, SEARCH_DEPTH))
        except OSError as error:
            raise UserError(f"{shown}: {error.strerror}") from error
        if not found:
            raise UsageError(f"{shown}: no run here (a run is a folder with {SUMMARY_FILE} or {METRICS_FILE})")
        folders |= {folder.resolve(): folder for folder in found}
    runs = [load_run(folder) for folder in folders.values()]
    count = Counter(run.name for run in runs)
    return [replace(run, name=_name_with_parent(run.folder)) if count[run.name] > 1 else run for run in runs]


def _run_folders(folder: Path, depth: int) -> Iterator[Path]:
    if (folder / SUMMARY_FILE).is_file() or (folder / METRICS_FILE).is_file():
        yield folder
    elif depth:
        for child in sorted(folder.iterdir()):
            if child.is_dir():
                yield from _run_folders(child, depth - 1)


def _name_with_parent(folder: Path) -> str:
    return printable("/".join(folder.resolve().parts[-2:]))
