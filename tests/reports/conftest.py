"""Run folders as the engine writes them, made of formulas instead of training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

NUM_BLOCKS, NUM_EPOCHS = 3, 4

MakeRun = Callable[..., Path]


def block_accuracy(block: int, epoch: int, seed: int) -> float:
    """Percent: 10 more by block, 5 more by epoch, 1 more by seed; the last block ends at 80 + seed."""
    return 40.0 + 10 * block + 5 * epoch + seed


def epoch_line(epoch: int, seed: int, num_blocks: int, local: bool) -> dict[str, Any]:
    last = num_blocks - 1
    line = {
        "kind": "epoch", "step": 10 * epoch, "epoch": epoch, "time_s": 2.0 * epoch,
        "train/loss": 2.0 / epoch, "train/accuracy": block_accuracy(last, epoch, seed) + 2,
        "test/loss": 2.5 / epoch, "test/accuracy": block_accuracy(last, epoch, seed),
    }  # fmt: skip
    for block in range(num_blocks) if local else [last]:
        line[f"test/block_{block:02d}/accuracy"] = block_accuracy(block, epoch, seed)
        line[f"test/block_{block:02d}/loss"] = 2.5 / epoch
    return line


def step_line(epoch: int) -> dict[str, Any]:
    return {
        "kind": "step",
        "step": 10 * epoch - 5,
        "epoch": epoch,
        "train/loss": 2.1 / epoch,
        "images_per_second": 300.0,
    }


def summary_of(line: dict[str, Any], method: str, seed: int, num_blocks: int) -> dict[str, Any]:
    return {
        "status": "done", "best_test_accuracy": line["test/accuracy"] + 0.5, "best_epoch": 3,
        "final_test_accuracy": line["test/accuracy"],
        "block_test_accuracy": [line.get(f"test/block_{block:02d}/accuracy") for block in range(num_blocks)],
        "wall_s": 70.0, "train_s": 65.4, "images_per_second": 400.0, "peak_memory_bytes": 3 * 2**29,
        "num_parameters": 1_234_567, "num_head_parameters": 0 if method == "bp" else 45_678,
        "seed": seed, "method": method, "model": "BasicCNN", "dataset": "digits",
    }  # fmt: skip


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write a run folder below ``tmp_path/runs`` and return it; other arguments are settings of the method."""

    def make(
        name: str, method: str = "dgl", seed: int = 0, num_blocks: int = NUM_BLOCKS, label: str = "", **settings: Any
    ) -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        epochs = [epoch_line(epoch, seed, num_blocks, method != "bp") for epoch in range(1, NUM_EPOCHS + 1)]
        lines = [line for epoch in epochs for line in (step_line(epoch["epoch"]), epoch)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / "summary.json").write_text(json.dumps(summary_of(epochs[-1], method, seed, num_blocks)))
        config = {
            "model": {"model": "BasicCNN"},
            "method": {"method": method, **settings},
            "data": {"dataset": "digits", "data_dir": f"data{seed}"},
            "optim": {"epochs": NUM_EPOCHS, "learning_rate": 0.05, "seed": seed},
            "run": {"device": f"cuda:{seed}", "name": label},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return folder

    return make


@pytest.fixture
def study(make_run: MakeRun) -> Path:
    """Two seeds of dgl and one run of back-propagation."""
    make_run("bp_a", "bp", seed=2)
    make_run("dgl_a", seed=0)
    return make_run("dgl_b", seed=1).parent
