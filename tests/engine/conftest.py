"""Runs through the real entry point, in this process, on a network and data that take a second."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loguru import logger

import main
from engine.loop.eager import Worker
from engine.loop.selfcheck import difference
from engine.run import checkpoint
from engine.run.folder import RunFolder

SMALL = [
    "--dataset",
    "digits",
    "--train_size",
    "160",
    "--batch_size",
    "32",
    "--epochs",
    "3",
    "--device",
    "cpu",
    "--precision",
    "fp32",
    "--wandb",
    "disabled",
    "--log_interval",
    "2",
]


class Runner:
    """Starts runs under one folder and looks at what they left."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, *words: str, model: str = "VGGs") -> int:
        return main.main([*SMALL, "--model", model, "--path", str(self.path), *words])

    def resume(self, *words: str) -> int:
        return main.main(["--resume", *words, "--wandb", "disabled"])

    @property
    def folders(self) -> list[Path]:
        return sorted(self.path.iterdir(), key=lambda path: path.stat().st_mtime_ns) if self.path.exists() else []

    @property
    def last(self) -> Path:
        return self.folders[-1]

    def summary(self, folder: Path | None = None) -> dict:
        return RunFolder(folder or self.last).summary()

    def state(self, folder: Path | None = None, name: str = checkpoint.LAST) -> dict:
        return checkpoint.load((folder or self.last) / "checkpoints" / name)

    def records(self, folder: Path | None = None) -> list[dict]:
        lines = ((folder or self.last) / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_network: str) -> Runner:
    monkeypatch.chdir(tmp_path)
    yield Runner(tmp_path / "runs")
    logger.remove()


@pytest.fixture
def same() -> Callable[[dict, dict], None]:
    """Two checkpoints hold the same bits, times aside."""

    def compare(first: object, second: object, where: str = "") -> None:
        if isinstance(first, torch.Tensor):
            assert torch.equal(first, second), where
        elif isinstance(first, dict):
            assert first.keys() == second.keys(), where
            for key in first.keys() - {"time_s", "train_s", "train_cpu_s", "args"}:
                compare(first[key], second[key], f"{where}/{key}")
        elif isinstance(first, (list, tuple)):
            assert len(first) == len(second), where
            for index, pair in enumerate(zip(first, second, strict=True)):
                compare(*pair, f"{where}/{index}")
        else:
            assert first == second, where

    return compare


def no_eager_steps(patch: pytest.MonkeyPatch) -> None:
    """From now on an eager step fails the test, but for those with which recorded steps are compared."""
    take, allowed = Worker.take, []

    def compare(*args: Any, **kwargs: Any) -> str:
        allowed.append(True)
        try:
            return difference(*args, **kwargs)
        finally:
            allowed.pop()

    patch.setattr("engine.layouts.difference", compare)
    patch.setattr(Worker, "take", lambda self, *given: take(self, *given) if allowed else pytest.fail("an eager step"))
