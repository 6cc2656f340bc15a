"""What the command costs over the bare engine, what logging costs, and how long it takes to start."""

from __future__ import annotations

import statistics
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from itertools import pairwise

from benchmarks import command, tables
from benchmarks.engine import Run, build_method, make_feed, with_precision
from benchmarks.timing import in_turns
from benchmarks.workers import Worker
from datamodules import load_data
from engine.devices import keep_freed_memory, set_determinism
from schemas import build_args

ROUNDS, EPOCHS, BATCH_SIZE = 3, 5, 64
FLAGS = ("--dataset", "digits", "--dgl", "--batch_size", BATCH_SIZE, "--epochs", EPOCHS, "--no_progress_bar")
LOUD, QUIET = ("--log_interval", "5", "--wandb", "offline"), ("--log_interval", "1000", "--wandb", "disabled")


def _command(flags: tuple[str, ...], beside: list[float]) -> float:
    """Images per second of training in the epochs after the first, by the run's own ``metrics.jsonl``.

    The seconds that the whole command took beside its training steps are added to ``beside``.
    """
    done = command.train(*FLAGS, *flags)
    beside.append(done.seconds - done.summary["train_s"])
    steps = [line for line in done.lines if line["kind"] == "step"]
    chunks = [(after["step"] - before["step"], after) for before, after in pairwise(steps) if after["epoch"] > 1]
    seconds = sum(count / line["images_per_second"] for count, line in chunks)
    return sum(count for count, _ in chunks) / seconds


class Bare:
    """The same steps without Lightning, run folder, logs or evaluation."""

    def rate(self) -> float:
        """Images per second of the epochs after the first."""
        args = build_args({"dataset": "digits", "method": "dgl", "batch_size": BATCH_SIZE, "epochs": EPOCHS})
        splits = load_data(args.data, announce=print, progress=False)
        set_determinism(False)
        keep_freed_memory()
        method = build_method(args, spec=splits.spec)
        feed = make_feed(args, splits.train, spec=splits.spec)
        run = Run(with_precision(args, method, feed), feed, method)
        run.take(feed.num_steps)
        begin = time.perf_counter()
        for epoch in range(1, EPOCHS):
            run.take(feed.num_steps, epoch * feed.num_steps)
        return (EPOCHS - 1) * feed.num_images / (time.perf_counter() - begin)


def _bare() -> float:
    with Worker(Bare) as worker:
        return float(worker.ask("rate"))


def run(options: Namespace) -> int:
    """Print and write the tables."""
    quiet: list[float] = []
    measures: dict[str, Callable[[], float]] = {"bare engine": _bare, "command": partial(_command, QUIET, quiet)}
    measures |= {"command, logging": partial(_command, LOUD, [])}
    rows = tables.rate_rows("what", in_turns(measures, range(ROUNDS), warm_up=False))
    print(f"\nthe command against the bare engine, median of {ROUNDS}: digits, BasicCNN, batch {BATCH_SIZE}; "
          "logging: every 5 steps and wandb offline")  # fmt: skip
    print(tables.text(rows, {"what": "", **tables.RATES}))
    tables.write_csv(options.out / "tax.csv", rows)
    helping = [command.call("--help") for _ in range(ROUNDS)]
    seconds = {"--help": helping, "a run of five epochs, without its training steps": quiet}
    starts = [{"what": name, "seconds": statistics.median(seen), "best": min(seen)} for name, seen in seconds.items()]
    print(f"\nbeside the training, median of {ROUNDS}")
    print(tables.text(starts, {"what": "", "seconds": "s", "best": "best"}))
    tables.write_csv(options.out / "start.csv", starts)
    return 0
