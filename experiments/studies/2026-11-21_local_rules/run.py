"""Every rule on one network: ``python experiments/studies/2026-11-21_local_rules/run.py NETWORK FOLDER SEED...``.

Each run is a process of its own, forked so that nothing is imported twice; its memory is then its own as well. Seeds
and, with ``--rules bp,dgl``, rules can be divided among several of these commands. Writes run folders
``..._NETWORK_rule_seed``, and after each run a line of ``FOLDER/NETWORK_SEED.csv``.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

COMMON = (
    "--dataset folder --data_dir data/cifar10-jpeg --train_size 10000 --epochs 3 --batch_size 128 --learning_rate 0.01 "
    "--random_crop --random_horizontal_flip --precision bf16 --device cpu --wandb disabled --no_progress_bar "
    "--log_interval 1000"
)
GREEDY = "--dgl --pred_aux_type linear"
# The rules by name; the first is what all are compared with.
RULES = {
    "bp": "--bp",
    "dgl": GREEDY,
    "sequential": f"{GREEDY} --sequential",
    "overlap": f"{GREEDY} --overlap 1",
    "infopro": "--infopro",
    "critic": "--critic",
    "predsim": "--predsim",
    "predsim_bio": "--predsim --bio",
    "auglocal": "--dgl --pred_aux_type auglocal",
    "auglocal_1": "--dgl --pred_aux_type auglocal --aux_depth 1",
    "man": f"{GREEDY} --man",
    "supcon": f"{GREEDY} --supcon_loss_weight 0.5",
    "simclr": f"{GREEDY} --simclr_loss_weight 0.5",
    "cpc": f"{GREEDY} --cpc_loss_weight 0.1",
    "direct_global": f"{GREEDY} --is_direct_global",
    "reconstruct": f"{GREEDY} --ssl --upsample",
    "inpaint": f"{GREEDY} --ssl --ssl_task inpaint",
    "colourise": f"{GREEDY} --ssl --ssl_task colourise --upsample",
    "rotate": f"{GREEDY} --ssl --ssl_task rotate",
    "fa": "--fa",
    "dfa": "--dfa",
    "dni": "--dni",
    "cdni": "--cdni",
}


def train(words: list[str], answer: multiprocessing.connection.Connection) -> None:
    """In a child: train, and answer with the summary and the memory beyond that of the forked process."""
    import main
    from engine import trainer

    kept: list[dict] = []
    run = trainer.run

    def run_and_keep(job: trainer.Job) -> dict:
        kept.append(run(job))
        return kept[-1]

    trainer.run = run_and_keep
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code = main.main(words)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer.send((code, kept[0] if kept else {}, (peak - before) / 1024))


def study(network: str, folder: Path, seeds: list[str], names: list[str]) -> None:
    """Run them one after the other."""
    import torch

    import engine.trainer
    import main

    assert main and engine.trainer  # loaded before any child is forked

    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    for seed in seeds:
        for name in names:
            words = [*COMMON.split(), *RULES[name].split(), "--model", network, "--seed", seed]
            words += ["--path", str(folder), "--name", f"{network}_{name}_{seed}"]
            mine, theirs = context.Pipe()
            child = context.Process(target=train, args=(words, theirs))
            child.start()
            theirs.close()
            code, summary, memory_mib = mine.recv()
            child.join()
            row = {"network": network, "rule": name, "seed": seed, "code": code, "memory_mib": round(memory_mib)}
            row |= {key: summary.get(key) for key in ("final_test_accuracy", "train_s", "num_head_parameters")}
            row["blocks"] = " ".join("-" if x is None else f"{x:.2f}" for x in summary.get("block_test_accuracy", []))
            path = folder / f"{network}_{seed}.csv"
            is_new = not path.exists()
            with path.open("a", newline="") as stream:
                writer = csv.DictWriter(stream, list(row))
                if is_new:
                    writer.writeheader()
                writer.writerow(row)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network")
    parser.add_argument("folder", type=Path)
    parser.add_argument("seeds", nargs="+")
    parser.add_argument("--rules", type=lambda text: text.split(","), default=list(RULES))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    study(options.network, options.folder, options.seeds, options.rules)
