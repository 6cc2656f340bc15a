"""Every rule on one network: ``python experiments/studies/2026-11-21_local_rules/run.py NETWORK FOLDER SEED...``.

Each run is a process of its own, forked so that nothing is imported twice. Seeds and, with ``--rules bp,dgl``, rules
can be divided among several of these commands. Writes run folders ``..._NETWORK_rule_seed``, and after each run a line
of ``FOLDER/NETWORK_SEED.csv``.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
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


def train(words: list[str]) -> None:
    """In a child."""
    import main

    raise SystemExit(main.main(words))


def study(network: str, folder: Path, seeds: list[str], names: list[str]) -> None:
    """Run them one after the other."""
    import torch

    import engine.trainer

    assert engine.trainer  # loaded before any child is forked

    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    for seed in seeds:
        for name in names:
            words = [*COMMON.split(), *RULES[name].split(), "--model", network, "--seed", seed]
            words += ["--path", str(folder), "--name", f"{network}_{name}_{seed}"]
            child = context.Process(target=train, args=(words,))
            child.start()
            child.join()
            *_, written = folder.glob(f"*_{network}_{name}_{seed}/summary.json")
            summary = json.loads(written.read_text())
            row = {"network": network, "rule": name, "seed": seed, "code": child.exitcode}
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
