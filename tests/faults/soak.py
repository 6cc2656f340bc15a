"""Trains, is killed and resumed at random, and must end with the bits of an undisturbed run.

``python -m tests.faults.soak --minutes 30``: rounds until the time is over, each with another method. A round starts
``main.py`` in a folder of its own and ends it again and again: kill -9, SIGTERM or Ctrl-C at a random moment of a whole
life of the process, its start included. Every fifth time a checkpoint is damaged as well. Exit code 0 if all is equal.
"""

from __future__ import annotations

import argparse
import itertools
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

import methods
from consts import DONE
from engine.run import checkpoint
from engine.run.folder import RunFolder
from tests.engine.test_run import without_times

ROOT = Path(__file__).parent.parent.parent
SETTINGS = (
    "--dataset digits --train_size 320 --batch_size 32 --device cpu --precision fp32 --log_interval 7 --model VGGs "
    "--mlp_hidden_dim 16 --dropout_prob 0.3 --random_erasing"
)
NUM_EPOCHS = 20  # as much work as starting the process, so that a few kills meet it
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ENDS = {0, 130, 143, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT}


def equal(first: object, second: object) -> bool:
    """Whether two checkpoints hold the same bits, times aside."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    if isinstance(first, dict) and isinstance(second, dict):
        names = first.keys() - {"time_s", "train_s", "train_cpu_s", "args"}
        return first.keys() == second.keys() and all(equal(first[name], second[name]) for name in names)
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(equal, first, second))
    return first == second


class Soak:
    """Counts what was done to the runs, and compares."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.life_s = 10.0  # of an undisturbed process; measured by every reference run

    def launch(self, folder: Path, words: list[str], wait_s: float | None) -> int:
        """Run a command, end it after ``wait_s``, and return its exit code."""
        command = [sys.executable, str(ROOT / "main.py"), *words]
        with (
            (folder / "out").open("ab") as out,
            subprocess.Popen(command, cwd=folder, stdout=out, stderr=out) as process,
        ):
            try:
                process.wait(wait_s)
            except subprocess.TimeoutExpired:
                number = self.random.choice(SIGNALS)
                self.done[number.name] += 1
                process.send_signal(number)
        return process.returncode

    def round(self, folder: Path, method: str) -> None:
        """One run undisturbed, one disturbed.

        Raises:
            SystemExit: something is not as it must be; the folder is kept.
        """
        words = [*SETTINGS.split(), "--wandb", "offline", f"--{method}", "--epochs", str(NUM_EPOCHS)]
        begin = time.monotonic()
        self.check(self.launch(folder, [*words, "--path", "whole"], None) == 0, folder, "the undisturbed run failed")
        self.life_s = time.monotonic() - begin
        for attempt in itertools.count():
            if attempt and attempt % 5 == 0:
                self.damage(folder / "disturbed")
            wait_s = self.random.uniform(0.2, 1.2) * self.life_s if attempt < 25 else None
            code = self.launch(folder, [*words, "--path", "disturbed", "--resume", "auto"], wait_s)
            self.check(code in ENDS, folder, f"it ended with {code}")
            if self.finished(folder):  # also where the end of the process, after that of the run, was cut short
                break
        self.compare(folder)

    def finished(self, folder: Path) -> list[Path]:
        """The disturbed runs that are done."""
        return [path for path in (folder / "disturbed").glob("*") if RunFolder(path).summary().get("status") == DONE]

    def damage(self, parent: Path) -> None:
        """Flip a bit of the newest ``last.ckpt`` that has a ``previous.ckpt``."""
        for path in sorted(parent.glob("*/checkpoints/previous.ckpt"))[-1:]:
            last = path.with_name(checkpoint.LAST)
            content = bytearray(last.read_bytes())
            content[len(content) // 2] ^= 1
            last.write_bytes(content)
            self.done["damaged"] += 1

    def compare(self, folder: Path) -> None:
        """The undisturbed run and the one that got to the end under its first name."""
        [whole] = (folder / "whole").iterdir()
        runs = self.finished(folder)
        self.check(len(runs) == 1, folder, f"{len(runs)} runs are done, not one")
        for name in (checkpoint.LAST, checkpoint.BEST):
            states = [checkpoint.load(path / "checkpoints" / name) for path in (whole, runs[0])]
            self.check(equal(*states), folder, f"{name} differs")
        records = [without_times([record for _, record in RunFolder(path)._records()]) for path in (whole, runs[0])]
        self.check(records[0] == records[1], folder, "metrics.jsonl differs")
        self.check("Traceback" not in (folder / "out").read_text(), folder, "there was a traceback")
        self.done["rounds"] += 1

    def check(self, holds: bool, folder: Path, problem: str) -> None:
        """End with the place to look at, unless ``holds``."""
        if not holds:
            sys.exit(f"soak: {problem}; see {folder}, {dict(self.done)}")


def main() -> None:
    """Parse, run rounds until the time is over, and say what was done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    soak, end = Soak(options.seed), time.monotonic() + 60 * options.minutes
    for method in itertools.cycle(methods.names()):
        folder = Path(tempfile.mkdtemp(prefix="soak-"))
        soak.round(folder, method)
        print(f"{method}: equal bits; so far {dict(soak.done)}", flush=True)
        if time.monotonic() > end:
            break
    print(f"soak: all equal after {dict(soak.done)}")


if __name__ == "__main__":
    main()
