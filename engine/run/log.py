"""Write a run's metrics to ``metrics.jsonl``, then to wandb, TensorBoard and the plots."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

import reports.confusion
from consts import CONFUSION, METRICS_FILE, PLOT_DIR
from engine.run.dashboard import Dashboard
from engine.run.folder import RunFolder
from engine.run.lines import Lines
from utils import atomic_write

_PLOT_PAUSE_S = 5.0
_PLOT_SHARE = 0.02  # of the time before a refresh, so that drawing cannot slow training by more
_FIRST_PLOT_S = 2.0  # what the first refresh takes, most of it to load matplotlib


class RunLog:
    """Appends to ``metrics.jsonl``, mirrors to the dashboards, and refreshes plots and page now and then.

    Args:
        folder: the run folder.
        dashboards: wandb and the like.
        draw: rebuilds the plots and the page of the folder.
        warn: called with one line at the first failure; training goes on.

    Raises:
        UserError: the record cannot be opened.
    """

    def __init__(
        self,
        folder: RunFolder,
        dashboards: Sequence[Dashboard],
        draw: Callable[[], None],
        warn: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self._dashboards = dashboards
        self._draw, self._warn = draw, warn
        with folder.writing(METRICS_FILE):
            self._lines = Lines(folder.path / METRICS_FILE)
        self._next_plot = time.monotonic() + _FIRST_PLOT_S / _PLOT_SHARE
        self._warned = False

    def write(self, kind: str, values: Mapping[str, Any]) -> None:
        """Append one line; ``kind`` is ``step`` or ``epoch``. NaN and infinities become null."""
        record = {"kind": kind} | {name: _plain(value) for name, value in values.items()}
        try:
            self._lines.append(json.dumps(record) + "\n")
        except OSError as error:
            self._warn_once(f"cannot write {METRICS_FILE}: {error.strerror}; training goes on and tries again")
        for dashboard in self._dashboards:
            dashboard.log(kind, values)

    @property
    def is_due(self) -> bool:
        """Whether enough time has passed to draw again."""
        return time.monotonic() >= self._next_plot

    def show(self, pictures: Mapping[str, Tensor], position: Mapping[str, Any]) -> None:
        """Write (H, W, 3) pictures of uint8 as ``plots/NAME.png``, and show them on the dashboards."""
        paths = {}
        for name, pixels_HWC in pictures.items():
            path = self.folder.path / PLOT_DIR / f"{name}.png"
            try:
                with atomic_write(path) as stream:
                    Image.fromarray(pixels_HWC.numpy()).save(stream, format="png")
                paths[name] = path
            except OSError as error:
                self._warn_once(f"cannot write {path}: {error.strerror or error}")
        self._mirror(paths, position)

    def show_confusion(
        self, counts: Sequence[Sequence[int]], class_names: Sequence[str], position: Mapping[str, Any]
    ) -> None:
        """Write labels against guesses as a table and a picture, and show the picture on the dashboards."""
        try:
            path = reports.confusion.write_confusion(self.folder.path, counts, class_names)
        except Exception as error:  # a failed picture must not end a run
            self._warn_once(f"cannot write {CONFUSION}.csv: {error}")
            return
        self._mirror({CONFUSION: path}, position)

    def _mirror(self, pictures: Mapping[str, Path], position: Mapping[str, Any]) -> None:
        for dashboard in self._dashboards:
            dashboard.show(pictures, position)

    def draw(self, *, now: bool = False) -> None:
        """Refresh the plots if enough time has passed since the last time, or ``now``."""
        begin = time.monotonic()
        if not self.is_due and not now:
            return
        try:
            self._draw()
        except Exception as error:  # a failed picture must not end a run
            self._warn_once(f"cannot draw the plots: {error}")
        end = time.monotonic()
        self._next_plot = end + max(_PLOT_PAUSE_S, (end - begin) / _PLOT_SHARE)

    def close(self, exit_code: int, summary: Mapping[str, Any]) -> None:
        """Close the record, and the dashboards with the ``summary`` of the run."""
        try:
            self._lines.close()
        except OSError as error:
            self._warn(f"the last lines of {METRICS_FILE} are lost: {error.strerror}")
        for dashboard in self._dashboards:
            dashboard.finish(exit_code, summary)

    @property
    def addresses(self) -> list[str]:
        """Lines that say where the dashboards are."""
        return [line for dashboard in self._dashboards if (line := dashboard.address)]

    def _warn_once(self, line: str) -> None:
        """Warn at the first failure only: on a full disk every later write fails too."""
        if not self._warned:
            self._warn(line)
        self._warned = True


class NoLog(RunLog):
    """The log of a process that is not the leader: it writes nothing."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._dashboards = ()

    is_due = False

    def write(self, kind: str, values: Mapping[str, Any]) -> None:
        """Nothing."""

    def draw(self, *, now: bool = False) -> None:
        """Nothing."""

    def close(self, exit_code: int, summary: Mapping[str, Any]) -> None:
        """Nothing."""


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
