"""From images in memory to augmented batches: the feed against torchvision's transforms behind a DataLoader."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from typing import Any

from benchmarks import tables
from benchmarks.engine import make_feed, random_images, settings
from benchmarks.peers import Setting
from benchmarks.peers.by_hand import Tuned, loader
from benchmarks.workers import in_turns

ROUNDS, NUM_IMAGES = 5, 3200
SECONDS = 0.3  # of a turn, at least


def _rate(batches: Callable[[], Iterable[Any]]) -> float:
    begin, seconds, num_images = time.perf_counter(), 0.0, 0
    while seconds < SECONDS:
        for _ in batches():
            pass
        num_images += NUM_IMAGES
        seconds = time.perf_counter() - begin
    return num_images / seconds


def _ways(batch_size: int) -> dict[str, Callable[[], Iterable[Any]]]:
    """What gives an epoch of batches, by name."""
    images, epochs = random_images(NUM_IMAGES), count()
    feed = make_feed(settings("bp", "BasicCNN", batch_size), images)
    return {
        "DataLoader, 0 workers": loader(images, batch_size, num_workers=0).__iter__,
        "DataLoader, 2 workers": loader(images, batch_size, num_workers=2).__iter__,
        "tuned": Tuned(Setting("BasicCNN", batch_size, NUM_IMAGES // batch_size)).batches,
        "feed": lambda: map(partial(feed.batch, next(epochs)), range(feed.num_steps)),
    }


def run(options: Namespace) -> int:
    """Print and write the table: crop, flip and normalise, nothing trained."""
    rows = []
    for batch_size in options.batch_size:
        rates = in_turns({name: partial(_rate, ways) for name, ways in _ways(batch_size).items()}, range(ROUNDS))
        rows += [row | {"batch_size": batch_size} for row in tables.rate_rows("way", rates)]
    columns = {"way": "", "batch_size": "batch", **tables.RATES}
    tables.show("input pipeline alone: random crop, flip and normalise", rows, columns, options.out / "input.csv")
    return 0
