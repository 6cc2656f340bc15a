"""Terminal output: log lines, a progress bar, and the closing lines of a run."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from loguru import logger
from tqdm import tqdm

from consts import ACCURACY, LOG_FILE, LOSS, REPORT_FILE, TEST, TRAIN, VAL, block_name, metric_name
from engine.run.lines import Lines
from utils import UserError, duration

_FORMAT = "<magenta>{time:YYYY-MM-DD HH:mm:ss}</magenta> | <level>{message}</level>"
_PLAIN_LINE_EVERY_S = 30.0


def log_to_terminal() -> None:
    """Send log lines to stdout, above the progress bar; a stdout that is full or closed does not end the run."""

    def show(line: str) -> None:
        with contextlib.suppress(OSError):
            tqdm.write(line, end="")
            sys.stdout.flush()

    logger.remove()
    logger.add(show, format=_FORMAT, colorize=sys.stdout.isatty())


@contextlib.contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Send them to ``run.log`` in the folder ``path`` as well.

    Raises:
        UserError: the file cannot be opened.
    """
    try:
        lines = Lines(path / LOG_FILE)
    except OSError as error:
        raise UserError(f"cannot write {path / LOG_FILE}: {error.strerror}") from error

    def write(line: str) -> None:
        with contextlib.suppress(OSError):  # a full disk is already reported by the metrics' warning
            lines.append(line)

    number = logger.add(write, format=_FORMAT, colorize=False)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # all handlers were removed meanwhile
            logger.remove(number)
        with contextlib.suppress(OSError):
            lines.close()


class Progress:
    """A progress bar with the remaining time; where the output is not a terminal, a plain line from time to time."""

    def __init__(self, num_steps: int, done: int, enabled: bool) -> None:
        self._bar: Any = None
        self._num_steps, self._done, self._first = num_steps, done, done
        self._begin = self._spoke = time.monotonic()
        if enabled and sys.stderr.isatty():
            self._bar = tqdm(
                total=num_steps, initial=done, unit="step", dynamic_ncols=True, leave=False, smoothing=0.1,
                bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} steps [{elapsed}, ETA {remaining}, {rate_fmt}{postfix}]",
            )  # fmt: skip

    @property
    def eta_s(self) -> float:
        """Remaining seconds at the average speed so far."""
        elapsed = time.monotonic() - self._begin
        return elapsed / max(self._done - self._first, 1) * (self._num_steps - self._done)

    def advance(self, label: str) -> None:
        """One step is done."""
        self._done += 1
        if self._bar is not None:
            self._bar.set_description_str(label, refresh=False)
            self._bar.update()
        elif time.monotonic() - self._spoke > _PLAIN_LINE_EVERY_S:
            self._spoke = time.monotonic()
            logger.info(f"{label} | step {self._done}/{self._num_steps} | ETA {duration(self.eta_s)}")

    def spoke(self) -> None:
        """Postpone the next plain line, since another line was just printed."""
        self._spoke = time.monotonic()

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


def epoch_line(
    epoch: int, num_epochs: int, time_s: float, eta_s: float, values: Mapping[str, float], block: int | None
) -> str:
    """The line of ``epoch`` (from 0), with losses and accuracies of ``block``, or of the network for None."""
    parts = [f"Epoch {epoch + 1:0{len(str(num_epochs))}d}/{num_epochs} ({duration(time_s)})", f"ETA {duration(eta_s)}"]
    parts += [block_name(block)] if block is not None else []
    for split in (TRAIN, VAL, TEST):
        names = metric_name(split, LOSS, block), metric_name(split, ACCURACY, block)
        if set(names) <= values.keys():
            loss, accuracy = (values[name] for name in names)
            parts.append(f"{split.capitalize()} loss={loss:.4f} acc={accuracy:.2f}%")
    return " | ".join(parts)


def percent(value: float | None) -> str:
    """An accuracy, or a dash where there is none."""
    return "-" if value is None else f"{value:.2f}"


def results(summary: dict[str, Any]) -> Iterable[str]:
    """The last lines that a run logs about its results."""
    yield (
        f"Best test accuracy: {percent(summary['best_test_accuracy'])}% (epoch {summary['best_epoch']}, "
        f"chosen on {summary['chosen_on']}); last epoch: {percent(summary['final_test_accuracy'])}%"
    )
    blocks = summary["block_test_accuracy"]
    if any(value is not None for value in blocks[:-1]):
        yield "Test accuracy by block (last epoch): " + "  ".join(percent(value) for value in blocks)
    yield f"Training {duration(summary['train_s'])}, {summary['images_per_second']:.0f} images/s"


def places(folder: Path) -> Iterable[str]:
    """The last lines that a run logs about where its files are."""
    yield f"Run folder: {folder}"
    yield f"Plots: open {folder / REPORT_FILE}"


def say(lines: Iterable[str]) -> None:
    """Log every line."""
    for line in lines:
        logger.info(line)
