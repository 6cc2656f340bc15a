"""What the user sees while a sweep runs: a line for every trial, a bar, and the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from loguru import logger
from optuna.trial import TrialState
from tqdm import tqdm

from sweeps.space import Scalar, to_text
from sweeps.study import BEST_EPOCH, BEST_VALUE, SweepStudy
from sweeps.trial import TrialProcess
from utils import duration, short_name


class Display:
    """Lines and a bar.

    Args:
        study: what is shown.
        progress_bar: draw the bar (in a terminal).
    """

    def __init__(self, study: SweepStudy, progress_bar: bool) -> None:
        self._study, self._bar = study, None
        self._begin = time.monotonic()
        spec, done = study.file.spec, self._num_finished()
        self._first: float | None = None
        self._progress = float(done)
        rest = f", {done} of them done" if done else ""
        logger.info(
            f"Sweep over {', '.join(study.file.varied)}: {spec.method}, {study.num_trials} trials{rest}; "
            f"{spec.metric.goal} {spec.metric.name}. Folder: {study.folder.path}"
        )
        if progress_bar and sys.stderr.isatty():
            self._bar = tqdm(
                total=study.num_trials, dynamic_ncols=True, leave=False,
                bar_format="{l_bar}{bar}| {n:.1f}/{total_fmt} trials [{elapsed}, ETA {postfix}",
            )  # fmt: skip

    def _num_finished(self) -> int:
        return sum(trial.state.is_finished() for trial in self._study.trials)

    def show(self, running: Sequence[tuple[TrialProcess, int]]) -> None:
        """Refresh the bar. ``running`` has the trials of this process and their planned epochs."""
        self._progress = self._num_finished() + sum(len(process.epochs) / epochs for process, epochs in running)
        if self._first is None:
            self._first = self._progress
        if self._bar is not None:
            self._bar.n = min(self._progress, self._study.num_trials)
            self._bar.set_postfix_str(f"{self._eta()}]", refresh=False)
            self._bar.refresh()

    def _eta(self) -> str:
        """Time left at the pace of this process so far; ``?`` before anything has happened."""
        done = self._progress - (self._first or 0)
        if done <= 0:
            return "?"
        return duration((time.monotonic() - self._begin) / done * max(0, self._study.num_trials - self._progress))

    def ended(self, number: int, process: TrialProcess) -> None:
        """A trial ended with a value: one line."""
        study, trial = self._study, self._study.trials[number]
        finished = self._num_finished()
        self._progress = max(self._progress, finished)
        verb = "done" if trial.state == TrialState.COMPLETE else f"stopped early after epoch {max(process.epochs)}"
        best, value, epoch = study.ranked()[0], trial.user_attrs[BEST_VALUE], trial.user_attrs[BEST_EPOCH]
        logger.info(
            f"Trial {number} {verb} ({finished}/{study.num_trials}) | "
            f"{study.file.spec.metric.name} {value:.4g} (epoch {epoch}) | "
            f"{show_values(study.values_of(trial))} | {duration(time.monotonic() - process.begin)} | "
            f"best {best.user_attrs[BEST_VALUE]:.4g} (trial {best.number}) | ETA {self._eta()}"
        )

    def close(self) -> None:
        """Remove the progress bar."""
        if self._bar is not None:
            self._bar.close()


def show_values(values: Mapping[str, Scalar]) -> str:
    """Parameters in a line: ``learning_rate=0.01327 dgl=true``."""
    return " ".join(f"{name}={show_value(value)}" for name, value in values.items())


def show_value(value: Any) -> str:
    """A number in four digits, code of the user's own by its name, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else short_name(to_text(value))
