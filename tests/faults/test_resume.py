"""A run that was stopped and resumed holds the bits of the run that was not, wherever and however it was stopped."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import methods
from tests.engine.test_run import without_times
from tests.faults import inject
from tests.faults.conftest import last_state, only_run, status
from tests.faults.process import NUM_STEPS, STEPS_PER_EPOCH, finish, small

# A row is a line: name and flags. Every method of the project is in it by itself.
DROPOUT = ["--dropout_prob", "0.3"]
ROWS = {name: [f"--{name}", *DROPOUT] for name in methods.names()} | {
    "ssl": ["--dgl", "--ssl", "--upsample", *DROPOUT],
    "sequential": ["--dgl", "--sequential", *DROPOUT],
    "selfsup": [
        "--dgl",
        "--ssl",
        "--ssl_task",
        "inpaint",
        "--simclr_loss_weight",
        "0.5",
        "--cpc_loss_weight",
        "0.5",
        *DROPOUT,
    ],
    "man": ["--dgl", "--man", *DROPOUT],
    "synthetic inputs": ["--dni", "--unlock", "forward", *DROPOUT],
    "bio": ["--predsim", "--bio", *DROPOUT],
    "threads": ["--dgl", "--layer_parallel", "threads", *DROPOUT],
}
TERM, KILL = signal.SIGTERM, signal.SIGKILL
# Five steps an epoch, a log line every two: the steps lie inside an interval, at its end, and at both ends of an epoch.
PLACES = {
    "mid-epoch": (partial(inject.signal_after_step, 7, TERM), 143),
    "first step": (partial(inject.signal_after_step, 0, TERM), 143),
    "end of an interval": (partial(inject.signal_after_step, 6, TERM), 143),
    "epoch end": (partial(inject.signal_after_step, STEPS_PER_EPOCH - 1, TERM), 143),
    "right after a save": (partial(inject.signal_after_save, 2, KILL), -KILL),
    "after completion": (partial(inject.signal_after_step, NUM_STEPS - 1, TERM), 143),
}


def records(path: Path) -> list[dict]:
    return without_times([json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()])


QUICK = ("fp32", "mid-epoch")  # of every row, in `make test` too
WITHOUT_BF16 = ("first step", "end of an interval")  # other arithmetic would show nothing new there


def every_case() -> Iterator[Any]:
    for row in ROWS:
        for place in PLACES:
            for precision in ("fp32",) if place in WITHOUT_BF16 else ("fp32", "bf16"):
                marks = [] if (precision, place) == QUICK else [pytest.mark.faults]
                yield pytest.param(row, precision, place, marks=marks)


@pytest.mark.parametrize(("row", "precision", "place"), [*every_case()])
def test_resumed_equals_uninterrupted(
    row: str, precision: str, place: str, tmp_path: Path, whole: Callable[..., Path], same: Callable[[dict, dict], None]
) -> None:
    words = [*ROWS[row], "--precision", precision]
    expected = whole(*words)
    fault, code = PLACES[place]
    assert finish(small(words), tmp_path, fault).exit_code() == code
    path = only_run(tmp_path)
    assert status(path) == ("interrupted" if code == 143 else "running")
    resumed = finish(["--resume", str(path)], tmp_path)
    assert (resumed.exit_code(), resumed.errors()) == (0, [])
    assert only_run(tmp_path) == path
    same(last_state(expected), last_state(path))
    same(last_state(expected, "best.ckpt"), last_state(path, "best.ckpt"))
    assert records(path) == records(expected)
    assert status(path) == "done"
