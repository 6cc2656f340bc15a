"""Seconds from typing a command to its answer, and to training."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

from benchmarks import tables
from consts import SUMMARY_FILE

REPEATS = 3
_TRAIN = ("--dataset", "digits", "--epochs", "1", "--dgl", "--wandb", "disabled", "--no_progress_bar")


def _seconds(*flags: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "main.py", *flags], capture_output=True, check=True)
    return time.perf_counter() - begin


def run(options: Namespace) -> int:
    """Print and write the table."""
    rows = [{"what": "--help", "seconds": statistics.median(_seconds("--help") for _ in range(REPEATS))}]
    with tempfile.TemporaryDirectory() as place:
        overheads = []
        for _ in range(REPEATS):
            wall = _seconds(*_TRAIN, "--path", place)
            newest = max(Path(place).iterdir(), key=lambda path: path.stat().st_mtime)
            overheads.append(wall - json.loads((newest / SUMMARY_FILE).read_text())["train_s"])
    rows.append({"what": "a run of one epoch, without its training steps", "seconds": statistics.median(overheads)})
    print(f"\nstart-up, median of {REPEATS}")
    print(tables.text(rows, {"what": "", "seconds": "s"}))
    tables.write_csv(options.out / "start.csv", rows)
    return 0
