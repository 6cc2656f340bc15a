"""Where metrics are shown beside ``metrics.jsonl``, the record; a dashboard can neither stop nor change a run."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from consts import TRAIN, block_name

_OF_A_BLOCK = re.compile(rf"(\w+)/{block_name(0)[:-2]}(\d+)/(\w+)")


class Dashboard(ABC):
    """A dashboard whose first failure ends the mirroring, and never the training.

    Args:
        name: of the dashboard, for the warning.
        warn: called with one line at the failure.

    Attributes:
        address: where to look at it, as a line; empty where there is nothing to see.
    """

    def __init__(self, name: str, warn: Callable[[str], None]) -> None:
        self._name, self._warn, self.address = name, warn, ""
        self._run: Any = None  # the library's object, None where nothing is mirrored

    def _guarded(self, act: Callable[[], object], otherwise: Callable[[Exception], object] | None = None) -> None:
        """Call ``act``, a call of the dashboard's library; if it fails, call ``otherwise``, or end the mirroring."""
        try:
            act()
        except Exception as error:
            (otherwise or self._give_up)(error)

    def _give_up(self, error: Exception) -> None:
        self._run, self.address = None, ""
        self._warn(f"{self._name} failed ({one_line(error)}): going on without it; metrics.jsonl has everything")

    def log(self, kind: str, values: Mapping[str, Any]) -> None:
        """Send one line of ``metrics.jsonl`` to the dashboard, without values that another one repeats."""
        if self._run is not None:
            self._guarded(lambda: self._log(without_repeats(kind, values)))

    def show(self, pictures: Mapping[str, Path], position: Mapping[str, Any]) -> None:
        """Show pictures by name beside the metrics of ``position`` (step and epoch)."""
        if self._run is not None and pictures:
            self._guarded(lambda: self._show(pictures, position))

    def finish(self, exit_code: int = 0, summary: Mapping[str, Any] | None = None) -> None:
        """Add the ``summary`` of the run, and close."""
        if self._run is not None:
            self._guarded(lambda: self._finish(exit_code, summary or {}))
        self._run = None

    @abstractmethod
    def _log(self, values: Mapping[str, Any]) -> None:
        """Send metrics; may raise anything."""

    @abstractmethod
    def _show(self, pictures: Mapping[str, Path], position: Mapping[str, Any]) -> None:
        """Send pictures; may raise anything."""

    @abstractmethod
    def _finish(self, exit_code: int, summary: Mapping[str, Any]) -> None:
        """Send the summary and close; may raise anything."""


def without_repeats(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A line of metrics without what another panel, or another point of the same panel, shows.

    The last block's values are the network's own. The training metrics of an epoch's line are means of those of its
    step lines, and would stand at the same step as the last of them.
    """
    blocks = {name: match.groups() for name in values if (match := _OF_A_BLOCK.fullmatch(name))}
    last = max((index for _, index, _ in blocks.values()), default=None)
    repeats = {
        name
        for name, (split, index, quantity) in blocks.items()
        if index == last and values[name] == values.get(f"{split}/{quantity}")
    }
    means = {name for name in values if kind == "epoch" and name.startswith(f"{TRAIN}/")}
    return {name: value for name, value in values.items() if name not in repeats | means}


def one_line(error: Exception) -> str:
    """The first line of an error's text, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
