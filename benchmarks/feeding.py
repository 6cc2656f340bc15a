"""From images in memory to augmented batches: the feed against torchvision's transforms behind a DataLoader."""

from __future__ import annotations

import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from typing import Any

import torch

from benchmarks import tables
from benchmarks.peers import Setting
from benchmarks.peers._common import MEAN, STD, images
from benchmarks.peers._pictures import turn
from benchmarks.peers.tuned import Tuned
from datamodules.base import DataSpec
from datamodules.feed import Feed
from schemas import build_args

ROUNDS, NUM_IMAGES = 5, 3200
SECONDS = 0.3  # of a turn, at least


def _turn(batches: Callable[[], Iterable[Any]]) -> float:
    begin, seconds, count = time.perf_counter(), 0.0, 0
    while seconds < SECONDS:
        for _ in batches():
            pass
        count += NUM_IMAGES
        seconds = time.perf_counter() - begin
    return count / seconds


def _ways(batch_size: int) -> dict[str, Callable[[], Iterable[Any]]]:
    """What gives an epoch of batches, by name."""
    spec = DataSpec("random", 3, 32, 32, tuple("0123456789"), MEAN, STD)
    feed = Feed(images(NUM_IMAGES), spec, batch_size, torch.device("cpu"), augment=build_args({}).data)
    setting = Setting("BasicCNN", batch_size, NUM_IMAGES // batch_size)
    loaders = {f"DataLoader, {workers} workers": turn(setting, workers) for workers in (0, 2)}
    tuned, epochs = Tuned(setting), count()

    def ours() -> Iterable[Any]:
        epoch = next(epochs)
        return (feed.batch(epoch, step) for step in range(feed.num_steps))

    def by_batch() -> Iterable[Any]:
        return (tuned.augment(picked) for picked in torch.randperm(NUM_IMAGES).split(batch_size))

    return {"feed": ours, **{name: partial(iter, made) for name, made in loaders.items()}, "tuned": by_batch}


def _rows(batch_size: int) -> list[dict[str, Any]]:
    ways = _ways(batch_size)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name, batches in ways.items():
            rate = _turn(batches)
            if number:
                rates[name].append(rate)
    ours = statistics.median(rates["feed"])
    return [
        {
            "way": name, "batch_size": batch_size, "images_per_second": statistics.median(seen), "best": max(seen),
            "ratio": ours / statistics.median(seen),
        }
        for name, seen in rates.items()
    ]  # fmt: skip


def run(options: Namespace) -> int:
    """Print and write the table: crop, flip and normalise, nothing trained."""
    rows = [row for batch_size in options.batch_size for row in _rows(batch_size)]
    print("\ninput pipeline alone: random crop, flip and normalise")
    columns = {
        "way": "",
        "batch_size": "batch",
        "images_per_second": "images/s",
        "best": "best",
        "ratio": "feed over it",
    }
    print(tables.text(rows, columns))
    tables.write_csv(options.out / "input.csv", rows)
    return 0
