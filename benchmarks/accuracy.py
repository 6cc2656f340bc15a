"""Time to accuracy: the command against the thesis's loop, on the same files with the same recipe."""

from __future__ import annotations

import statistics
import time
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks import tables
from benchmarks.peers import Setting
from benchmarks.peers.by_hand import LEARNING_RATE, WEIGHT_DECAY, Thesis, loader
from benchmarks.tax import train
from consts import ACCURACY, TEST, metric_name
from datamodules import load_data
from datamodules.base import Splits
from datamodules.feed import EVALUATION_BATCH
from schemas import build_args

BATCH_SIZE, NUM_IMAGES, MAX_EPOCHS, NUM_SEEDS = 64, 10_000, 15, 3


def _command(data_dir: str, seed: int) -> Iterator[tuple[float, float]]:
    """After every epoch of ``main.py``: seconds since training began, and test accuracy in percent."""
    flags = ("--dgl", "--dataset", "folder", "--data_dir", data_dir, "--train_size", NUM_IMAGES, "--seed", seed,
             "--batch_size", BATCH_SIZE, "--learning_rate", LEARNING_RATE, "--no_nesterov", "--weight_decay",
             WEIGHT_DECAY, "--lr_schedule", "constant", "--epochs", MAX_EPOCHS, "--wandb", "offline")  # fmt: skip
    for line in train(*flags)[0]:
        if line["kind"] == "epoch":
            yield line["time_s"], line[metric_name(TEST, ACCURACY)]


def _thesis(splits: Splits, seed: int) -> Iterator[tuple[float, float]]:
    """Time and test accuracy of the thesis's loop after each epoch, on the same images."""
    torch.manual_seed(seed)
    peer = Thesis(Setting("BasicCNN", BATCH_SIZE, 1))
    for layer in torch.nn.ModuleList([*peer.blocks, *peer.heads]).modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
            layer.reset_parameters()  # other weights for every seed
    batches = loader(splits.train, BATCH_SIZE)
    test = loader(splits.test, EVALUATION_BATCH, train=False)
    begin = time.perf_counter()
    for _ in range(MAX_EPOCHS):
        for x, y in batches:
            peer.step(x, y)
        accuracy = peer.accuracy(test)
        yield time.perf_counter() - begin, accuracy


def run(options: Namespace) -> int:
    """Print and write the table: seconds of training and testing, without start-up; 1 if a run does not get there."""
    args = build_args({"dataset": "folder", "data_dir": options.data_dir, "train_size": NUM_IMAGES})
    splits = load_data(args.data, announce=print, progress=False)
    rows: list[dict[str, Any]] = []
    for seed in range(NUM_SEEDS):
        for way, points in (("command", _command(options.data_dir, seed)), ("thesis", _thesis(splits, seed))):
            reached = ((epoch, seconds) for epoch, (seconds, percent) in enumerate(points, 1)
                       if percent >= options.target)  # fmt: skip
            epoch, seconds = next(reached, (None, None))
            if epoch is None:
                print(f"{way}, seed {seed}: not {options.target:g} % in {MAX_EPOCHS} epochs")
                return 1
            rows.append({"way": way, "seed": seed, "epochs": epoch, "seconds": seconds})
            print(f"{way}, seed {seed}: {epoch} epochs, {seconds:.1f} s")
    ours, theirs = (statistics.median(row["seconds"] for row in rows[place::2]) for place in (0, 1))
    title = f"to {options.target:g} % test accuracy, BasicCNN, {NUM_IMAGES} images, {NUM_SEEDS} seeds, median: "
    title += f"command {ours:.0f} s, thesis {theirs:.0f} s, ratio {ours / theirs:.2f}"
    columns = {"way": "", "seed": "seed", "epochs": "epochs", "seconds": "s"}
    tables.show(title, rows, columns, options.out / "accuracy.csv")
    return 0
