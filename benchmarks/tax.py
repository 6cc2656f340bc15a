"""What the command costs over the bare engine, what logging costs, and how long it takes to start."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks import tables
from consts import METRICS_FILE, SUMMARY_FILE

ROUNDS, EPOCHS, BATCH_SIZE = 3, 5, 64
_COMMAND = (
    "--dataset", "digits", "--dgl", "--batch_size", str(BATCH_SIZE), "--epochs", str(EPOCHS), "--no_progress_bar",
)  # fmt: skip
LOUD, QUIET = ("--log_interval", "5", "--wandb", "offline"), ("--log_interval", "1000", "--wandb", "disabled")


def _seconds(*flags: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "main.py", *flags], capture_output=True, check=True)
    return time.perf_counter() - begin


def _command(*flags: str) -> tuple[float, float]:
    """Images per second of training in the epochs after the first, by the run's own ``metrics.jsonl``.

    And the seconds that the whole command took beside its training steps.
    """
    with tempfile.TemporaryDirectory() as place:
        seconds = _seconds(*_COMMAND, *flags, "--path", place)
        (run,) = Path(place).iterdir()
        lines: list[dict[str, Any]] = [json.loads(line) for line in (run / METRICS_FILE).read_text().splitlines()]
        beside = seconds - json.loads((run / SUMMARY_FILE).read_text())["train_s"]
    steps = [line for line in lines if line["kind"] == "step" and line["epoch"] > 1]
    numbers = [line["step"] for line in lines if line["kind"] == "step"]
    sizes = {after: after - before for before, after in pairwise(numbers)}
    seconds = sum(sizes[line["step"]] * BATCH_SIZE / line["images_per_second"] for line in steps)
    return sum(sizes[line["step"]] for line in steps) * BATCH_SIZE / seconds, beside


def _bare() -> float:
    """The same steps without Lightning, run folder, logs or evaluation, in a process of their own."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.tax"], capture_output=True, text=True, check=True)
    return float(done.stdout)


def bare_engine() -> float:
    """Images per second of the epochs after the first."""
    import torch

    import methods
    from consts import TRAIN
    from datamodules import load_data
    from engine.devices import autocast, choose_precision, keep_freed_memory, set_determinism
    from engine.loop.meter import Meter
    from engine.loop.optimizer import build_optimizer, update
    from engine.trainer import make_feeds
    from model import build_backbone
    from schemas import build_args

    args = build_args({"dataset": "digits", "method": "dgl", "batch_size": BATCH_SIZE})
    splits, device = load_data(args.data, announce=print, progress=False), torch.device("cpu")
    torch.manual_seed(0)
    method = methods.load("dgl")(args.method, build_backbone(args.model, splits.spec), splits.spec)
    set_determinism(False)
    keep_freed_memory()
    method.to(memory_format=torch.channels_last)
    feed = make_feeds(args, splits, device)[TRAIN]
    precision, _ = choose_precision(method, feed.batch(0, 0))
    optimizer, meter = build_optimizer(args.optim, method), Meter()
    for epoch in range(EPOCHS):
        if epoch == 1:
            begin = time.perf_counter()
        for step in range(feed.num_steps):
            batch = feed.batch(epoch, step)
            with autocast(device, precision):
                output = method.fill_grads(batch)
            update(optimizer, args.optim.learning_rate, args.optim.gradient_clip)
            meter.add(output, batch.y_B)
    meter.read()
    return (EPOCHS - 1) * feed.num_images / (time.perf_counter() - begin)


def run(options: Namespace) -> int:
    """Print and write the tables."""
    rates: dict[str, list[float]] = {"bare engine": [], "command": [], "command, logging": []}
    seconds: dict[str, list[float]] = {"--help": [], "a run of five epochs, without its training steps": []}
    helping, running = seconds.values()
    for _ in range(ROUNDS):
        helping.append(_seconds("--help"))
        rates["bare engine"].append(_bare())
        rate, beside = _command(*QUIET)
        rates["command"].append(rate)
        running.append(beside)
        rates["command, logging"].append(_command(*LOUD)[0])
    reference = statistics.median(rates["bare engine"])
    rows = [
        {"what": name, "images_per_second": statistics.median(seen), "slowest": min(seen), "best": max(seen),
         "ratio": statistics.median(seen) / reference}
        for name, seen in rates.items()
    ]  # fmt: skip
    print(f"\nthe command against the bare engine, median of {ROUNDS}: digits, BasicCNN, batch {BATCH_SIZE}; "
          "logging: every 5 steps and wandb offline")  # fmt: skip
    columns = {"what": "", "images_per_second": "images/s", "slowest": "slowest", "best": "best", "ratio": "x bare"}
    print(tables.text(rows, columns))
    starts = [{"what": name, "seconds": statistics.median(seen), "best": min(seen)} for name, seen in seconds.items()]
    print(f"\nbeside the training, median of {ROUNDS}")
    print(tables.text(starts, {"what": "", "seconds": "s", "best": "best"}))
    tables.write_csv(options.out / "tax.csv", rows)
    tables.write_csv(options.out / "start.csv", starts)
    return 0


if __name__ == "__main__":
    print(bare_engine())
