"""Columns of the run tables: title and number format of every number in a summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.runs import Run
from utils import duration, human_bytes

NOTHING = "-"
MAX_SHOWN_BLOCKS = 4

_FORMS = {"count": "{:,.0f}".format, "percent": "{:.2f}".format, "time": duration, "bytes": human_bytes}


@dataclass(frozen=True)
class Column:
    """A number: its key in the summary, its title, and its kind (``count``, ``percent``, ``time`` or ``bytes``)."""

    key: str
    title: str
    kind: str

    def show(self, value: float | None) -> str:
        """The number as text, with its unit where the title has none; ``-`` where it is unknown."""
        return NOTHING if value is None else _FORMS[self.kind](value)


SEED = Column("seed", "seed", "count")
BEST = Column("best_test_accuracy", "best test %", "percent")
BEST_EPOCH = Column("best_epoch", "best epoch", "count")
FINAL = Column("final_test_accuracy", "final test %", "percent")
PARAMETERS = Column("num_parameters", "parameters", "count")
HEAD_PARAMETERS = Column("num_head_parameters", "head parameters", "count")
TRAIN_TIME = Column("train_s", "train time", "time")
TOTAL_TIME = Column("wall_s", "total time", "time")
SPEED = Column("images_per_second", "images/s", "count")
MEMORY = Column("peak_memory_bytes", "peak memory", "bytes")

COLUMNS = (
    SEED, BEST, BEST_EPOCH, FINAL, PARAMETERS, HEAD_PARAMETERS, TRAIN_TIME, TOTAL_TIME, SPEED, MEMORY,
)  # fmt: skip


def plain(value: float | None) -> float | int | None:
    """A number for a table that programs read: whole ones without a decimal point."""
    return int(value) if value is not None and value.is_integer() else value


def status(run: Run) -> str:
    """The status in the summary, or ``unknown``."""
    return run.text("status") or "unknown"


def progress(run: Run) -> str:
    """Epochs done and planned: ``3 of 20``."""
    done, planned = run.epochs[-1]["epoch"] if run.epochs else 0, run.number("epochs")
    return f"{done:.0f}" if planned is None else f"{done:.0f} of {planned:.0f}"


def show_blocks(values: Sequence[float | None]) -> str:
    """Percentages by block; of many blocks the first two and the last: ``61.0 72.3 ... 95.0``."""
    words = [NOTHING if value is None else f"{value:.1f}" for value in values]
    return " ".join(words if len(words) <= MAX_SHOWN_BLOCKS else [*words[:2], "...", words[-1]]) or NOTHING


def short_count(count: float | None) -> str:
    """A large number in four characters or five: ``950``, ``34.2k``, ``1.43M``."""
    if count is None:
        return NOTHING
    for unit in ("", "k", "M"):
        if count < 999.5:
            return f"{count:.0f}" if not unit else f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}G"
