"""Time to accuracy: the command against the thesis's loop, on the same files with the same recipe."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Generator
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks import tables
from benchmarks.peers import Setting
from benchmarks.peers._common import LEARNING_RATE, WEIGHT_DECAY
from benchmarks.peers._pictures import Pictures, loader
from benchmarks.peers.thesis import Thesis
from consts import ACCURACY, METRICS_FILE, TEST, metric_name
from datamodules import load_data
from datamodules.base import Splits
from datamodules.feed import EVALUATION_BATCH
from schemas import build_args

BATCH_SIZE, NUM_IMAGES, MAX_EPOCHS, NUM_SEEDS = 64, 10_000, 15, 3

Points = Generator[
    tuple[float, float], None, None
]  # after every epoch: seconds since training began, test accuracy in percent


def _command(data_dir: str, seed: int) -> Points:
    """``main.py``, by its own ``metrics.jsonl``; it is told to stop when nobody asks for more."""
    flags = ("--dgl", "--dataset", "folder", "--data_dir", data_dir, "--train_size", NUM_IMAGES, "--seed", seed,
             "--batch_size", BATCH_SIZE, "--learning_rate", LEARNING_RATE, "--no_nesterov", "--weight_decay",
             WEIGHT_DECAY, "--lr_schedule", "constant", "--epochs", MAX_EPOCHS, "--wandb", "offline")  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "main.py", *map(str, flags), "--path", place]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            seen = 0
            try:
                while process.poll() is None:
                    time.sleep(0.2)
                    points = [point for run in Path(place).iterdir() for point in _epochs(run / METRICS_FILE)]
                    yield from points[seen:]
                    seen = len(points)
            finally:
                process.terminate()


def _epochs(path: Path) -> list[tuple[float, float]]:
    text = path.read_text() if path.exists() else ""
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [(line["time_s"], line[metric_name(TEST, ACCURACY)]) for line in lines if line["kind"] == "epoch"]


def _thesis(splits: Splits, seed: int) -> Points:
    """The thesis's loop, tested on the same images after every epoch."""
    torch.manual_seed(seed)
    peer = Thesis(Setting("BasicCNN", BATCH_SIZE, 1))
    for part in (*peer.blocks, *peer.heads):
        for layer in part.modules():
            if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
                layer.reset_parameters()  # other weights for every seed
    train = loader(Pictures(splits.train), BATCH_SIZE)
    test = loader(Pictures(splits.test, augment=False), EVALUATION_BATCH, shuffle=False)
    begin = time.perf_counter()
    for _ in range(MAX_EPOCHS):
        for x, y in train:
            peer.step(x, y)
        accuracy = peer.accuracy(test)
        yield time.perf_counter() - begin, accuracy


def _reach(points: Points, target: float) -> tuple[int, float] | None:
    """The epoch that reaches the target, and when; None if none does."""
    for epoch, (seconds, accuracy) in enumerate(points, 1):
        if accuracy >= target:
            return epoch, seconds
    return None


def run(options: Namespace) -> int:
    """Print and write the table: seconds of training and testing, without start-up; 1 if a run does not get there."""
    args = build_args({"dataset": "folder", "data_dir": options.data_dir, "train_size": NUM_IMAGES})
    splits = load_data(args.data, announce=print, progress=False)
    rows, seconds = [], dict[str, list[float]]()
    for seed in tqdm(range(NUM_SEEDS), leave=False, unit="seed"):
        for way, points in (("command", _command(options.data_dir, seed)), ("thesis", _thesis(splits, seed))):
            reached = _reach(points, options.target)
            points.close()
            if reached is None:
                print(f"{way}, seed {seed}: not {options.target:g} % in {MAX_EPOCHS} epochs")
                return 1
            rows.append({"way": way, "seed": seed, "epochs": reached[0], "seconds": reached[1]})
            seconds.setdefault(way, []).append(reached[1])
            tqdm.write(f"{way}, seed {seed}: {reached[0]} epochs, {reached[1]:.1f} s")
    ours, theirs = (statistics.median(seconds[way]) for way in ("command", "thesis"))
    print(f"\nto {options.target:g} % test accuracy, BasicCNN, {NUM_IMAGES} images, {NUM_SEEDS} seeds, median: "
          f"command {ours:.0f} s, thesis {theirs:.0f} s, ratio {ours / theirs:.2f}")  # fmt: skip
    print(tables.text(rows, {"way": "", "seed": "seed", "epochs": "epochs", "seconds": "s"}))
    tables.write_csv(options.out / "accuracy.csv", rows)
    return 0
