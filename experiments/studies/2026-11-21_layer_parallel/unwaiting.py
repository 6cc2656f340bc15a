"""Stages that wait for nobody: ``python experiments/studies/2026-11-21_layer_parallel/unwaiting.py FOLDER``.

Accuracy against the size of the buffers, and against a stage that is held up by so many seconds in every step. Writes
``FOLDER/unwaiting.csv``.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

WORDS = (
    "--dgl --pred_aux_type linear --model VGGsw --dataset folder --data_dir data/cifar10-jpeg --train_size 5000 "
    "--epochs 3 --batch_size 64 --learning_rate 0.01 --random_crop --random_horizontal_flip --precision bf16 "
    "--device cpu --wandb disabled --no_progress_bar --layer_parallel threads --stages 0,1,2 --log_interval 1000"
)
BUFFERS, SEEDS = {"none": (0, 1, 4, 16, 64)}, (0, 1, 2)  # with a slow stage only some of them
DELAYS = {"none": (0.0, 0.0, 0.0), "first": (0.1, 0.0, 0.0), "second": (0.0, 0.1, 0.0), "last": (0.0, 0.0, 0.1)}


def hold_up(delays: Sequence[float]) -> None:
    """Let each stage, a single block here, wait for so many seconds before every step of the runs from here on."""
    from engine.parallel.stage import Stage

    original: Callable[..., Any] = getattr(Stage.train, "original", Stage.train)

    def train(self: Stage, item: Any) -> Any:
        time.sleep(delays[self.blocks[0]])
        return original(self, item)

    train.original = original  # type: ignore[attr-defined]
    Stage.train = train  # type: ignore[method-assign]


def main() -> None:
    """Run them one after the other."""
    import main as program
    from engine import trainer

    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    kept: list[dict] = []
    run = trainer.run

    def run_and_keep(job: trainer.Job) -> dict:
        kept.append(run(job))
        return kept[-1]

    trainer.run = run_and_keep
    rows = []
    for slow, delays in DELAYS.items():
        hold_up(delays)
        for size in BUFFERS.get(slow, (0, 1, 16)):
            for seed in SEEDS:
                if slow != "none" and seed > (size > 0):  # the bits do not depend on a delay; its time is enough
                    continue
                words = [*WORDS.split(), "--seed", str(seed), "--path", str(folder)]
                words += ["--async_buffer", str(size)] if size else []
                assert program.main(words) == 0
                summary = kept[-1]
                blocks = " ".join(f"{value:.2f}" for value in summary["block_test_accuracy"])
                rows.append({"slow_stage": slow, "buffer": size, "seed": seed, "train_s": summary["train_s"],
                             "test_accuracy": summary["final_test_accuracy"], "blocks": blocks})  # fmt: skip
                with (folder / "unwaiting.csv").open("w", newline="") as stream:
                    writer = csv.DictWriter(stream, list(rows[0]))
                    writer.writeheader()
                    writer.writerows(rows)


if __name__ == "__main__":
    main()
