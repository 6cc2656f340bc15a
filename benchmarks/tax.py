"""What the command costs over the bare engine, what logging costs, and how long it takes to start."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks import tables
from benchmarks.peers.own import Own
from benchmarks.workers import Worker, in_turns
from consts import METRICS_FILE, SUMMARY_FILE
from datamodules import load_data
from schemas import build_args

ROUNDS, EPOCHS, BATCH_SIZE = 3, 5, 64
START_ROUNDS, TORCH = 5, "import torch"
FLAGS = ("--dataset", "digits", "--dgl", "--batch_size", BATCH_SIZE, "--epochs", EPOCHS, "--no_progress_bar")
LOUD, QUIET = ("--log_interval", "5", "--wandb", "offline"), ("--log_interval", "1000", "--wandb", "disabled")


def call(*flags: object) -> float:
    """Seconds of ``main.py`` with ``flags``."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "main.py", *map(str, flags)], capture_output=True, check=True)
    return time.perf_counter() - begin


def start(program: Sequence[str], *, only_first_line: bool = False) -> float:
    """Seconds of a Python program, or until it has written a line and is killed."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        words = [sys.executable, *program, *(("--path", place) if "--dataset" in program else ())]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            assert process.stdout is not None
            process.stdout.readline()
            if only_first_line:
                seconds = time.perf_counter() - begin
                process.kill()
                return seconds
            process.communicate()
        if process.returncode:
            raise RuntimeError(f"{' '.join(words)}: exit code {process.returncode}")
    return time.perf_counter() - begin


def train(*flags: object) -> tuple[list[dict[str, Any]], float]:
    """The lines of ``metrics.jsonl`` of a run with ``flags``; seconds of the command beside its training steps."""
    with tempfile.TemporaryDirectory() as place:
        seconds = call(*flags, "--path", place)
        (folder,) = Path(place).iterdir()
        lines = [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]
        return lines, seconds - json.loads((folder / SUMMARY_FILE).read_text())["train_s"]


def _command(flags: tuple[str, ...], beside: list[float]) -> float:
    """Images per second of training in the epochs after the first; the seconds beside it are added to ``beside``."""
    lines, seconds_beside = train(*FLAGS, *flags)
    beside.append(seconds_beside)
    steps = [line for line in lines if line["kind"] == "step"]
    chunks = [(after["step"] - before["step"], after) for before, after in pairwise(steps) if after["epoch"] > 1]
    return sum(count for count, _ in chunks) / sum(count / line["images_per_second"] for count, line in chunks)


class Bare:
    """The same steps without Lightning, run folder, logs or evaluation."""

    def rate(self) -> float:
        """Images per second of the epochs after the first."""
        args = build_args({"dataset": "digits", "method": "dgl", "batch_size": BATCH_SIZE, "epochs": EPOCHS})
        splits = load_data(args.data, announce=print, progress=False)
        own = Own(args, splits.train, splits.spec)
        own.train()
        return (EPOCHS - 1) * own.feed.num_images / sum(own.train() for _ in range(1, EPOCHS))


def _bare() -> float:
    with Worker(Bare) as worker:
        return float(worker.ask("rate"))


def run(options: Namespace) -> int:
    """Print and write the tables."""
    quiet: list[float] = []
    measures: dict[str, Callable[[], float]] = {"bare engine": _bare, "command": partial(_command, QUIET, quiet)}
    measures |= {"command, logging": partial(_command, LOUD, [])}
    rows = tables.rate_rows("what", in_turns(measures, range(ROUNDS), warm_up=False))
    title = f"the command against the bare engine, median of {ROUNDS}: digits, BasicCNN, batch {BATCH_SIZE}"
    title += "; logging: every 5 steps and wandb offline"
    tables.show(title, rows, {"what": "", **tables.RATES}, options.out / "tax.csv")
    starts = [*_starts(), _start_row("a run of five epochs, without its training steps", quiet)]
    columns = {"what": "", "seconds": "s", "best": "best", "ratio": f"x {TORCH}"}
    tables.show(f"starting, median of {START_ROUNDS}", starts, columns, options.out / "start.csv")
    return 0


def _starts() -> Iterator[dict[str, Any]]:
    """How long it takes to import torch, to answer, to say what will be trained, and to train for two steps."""
    two_steps = ["main.py", "--dgl", "--dataset", "digits", "--epochs", "1", "--train_size", "64", "--batch_size", "32",
                 "--wandb", "disabled"]  # fmt: skip
    measures = {
        TORCH: partial(start, ["-c", TORCH]),
        "--help": partial(start, ["main.py", "--help"]),
        "the first line of a run": partial(start, two_steps, only_first_line=True),
        "a run of two steps": partial(start, two_steps),
    }
    times = in_turns(measures, range(START_ROUNDS))
    for name, seen in times.items():
        yield _start_row(name, seen) | {"ratio": statistics.median(seen) / statistics.median(times[TORCH])}


def _start_row(name: str, seen: list[float]) -> dict[str, Any]:
    return {"what": name, "seconds": statistics.median(seen), "best": min(seen), "ratio": None}
