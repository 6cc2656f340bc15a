"""Stages that wait for nobody: ``python experiments/studies/2026-11-21_layer_parallel/unwaiting.py FOLDER``.

Accuracy against the size of the buffers, and against a stage that is held up by so many seconds in every step. Writes
``FOLDER/unwaiting.csv``.
"""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

WORDS = (
    "--dgl --pred_aux_type linear --model VGGsw --dataset folder --data_dir data/cifar10-jpeg --train_size 5000 "
    "--epochs 3 --batch_size 64 --learning_rate 0.01 --random_crop --random_horizontal_flip --precision bf16 "
    "--device cpu --wandb disabled --no_progress_bar --layer_parallel threads --stages 0,1,2 --log_interval 1000"
)
BUFFERS, SEEDS = {"none": (0, 1, 4, 16, 64)}, (0, 1, 2)  # with a slow stage only some of them
DELAYS_S = {"none": (0, 0, 0), "first": (0.1, 0, 0), "second": (0, 0.1, 0), "last": (0, 0, 0.1)}


def main() -> None:
    """Run them one after the other."""
    import main as program
    from engine import trainer
    from engine.parallel.stage import Stage

    learn, delay_s = Stage.learn, [0.0, 0.0, 0.0]

    def learn_slowly(self: Stage, *inputs: Any) -> Any:
        time.sleep(delay_s[self.blocks[0]])
        return learn(self, *inputs)

    Stage.learn = learn_slowly  # type: ignore[method-assign, assignment]
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    kept: list[dict] = []
    run = trainer.run

    def run_and_keep(job: trainer.Job) -> dict:
        kept.append(run(job))
        return kept[-1]

    trainer.run = run_and_keep
    rows = []
    for slow, delays_s in DELAYS_S.items():
        delay_s[:] = delays_s
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
