"""Rules on data with a theory: ``python experiments/studies/2026-11-27_theory/runs.py FOLDER [EXPERIMENT ...]``.

Each run is a process of its own, forked so that nothing is imported twice. Writes run folders into FOLDER, and after
each run a line of ``results.csv`` beside this file; lines that are there already are not run again.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[3]))

TABLE = Path(__file__).with_name("results.csv")
COLUMNS = ("experiment", "x", "rule", "seed", "test_accuracy", "block_test_accuracy", "train_s", "wall_s")
SEEDS = ("0", "1", "2")  # of the data as well as of the run
COMMON = (
    "--optimizer_type Adam --learning_rate 0.01 --batch_size 128 --num_test_images 1000 --precision fp32 --device cpu "
    "--wandb disabled --no_progress_bar --log_interval 1000"
)
RULES = {"bp": "--bp", "dgl": "--dgl", "sequential": "--dgl --sequential", "dfa": "--dfa"}
LINEAR = "linear"  # least squares on the pixels, computed here
ALL = ("bp", "dgl", "dfa", LINEAR)


class Case(NamedTuple):
    """A value of the setting in which runs of an experiment differ, besides the rule.

    ``sequential`` gives every block as many epochs as the others give to all of them at once.
    """

    x: str
    words: str
    epochs: int
    rules: tuple[str, ...] = ALL


class Experiment(NamedTuple):
    """Runs with one network on one data set."""

    words: str
    num_layers: int
    cases: tuple[Case, ...]


def parity(num_images: int, epochs: int, rules: tuple[str, ...]) -> Experiment:
    """Parities of 5 of 30 bits, with inputs of three kinds."""
    return Experiment(
        f"--dataset parity --num_bits 30 --parity_size 5 --num_train_images {num_images} --model MLP --layer_width 128",
        2,
        tuple(Case(kind, f"--parity_inputs {kind}", epochs, rules) for kind in ("uniform", "biased", "mixture")),
    )


EXPERIMENTS = {
    "parity": parity(4000, 10, ALL),
    "parity_16000": parity(16000, 5, ("bp", LINEAR)),
    "xor": Experiment(
        "--dataset boolean_circuit --circuit_gates xor --circuit_depth 4 --num_train_images 8000 --model TreeLC "
        "--layer_width 16",
        4,
        tuple(Case(value, f"--local_correlation {value}", 8) for value in ("0", "0.3", "0.4", "0.45")),
    ),
    "and_or": Experiment(
        "--dataset boolean_circuit --circuit_depth 6 --num_train_images 6000 --model TreeLC --layer_width 16",
        6,
        (
            Case("0.5", "--local_correlation 0.5", 6, (*ALL, "sequential")),
            Case("uniform pairs", "", 6, (*ALL, "sequential")),
        ),
    ),
    "digits": Experiment(
        "--dataset hierarchical_digits --num_train_images 2000 --model TreeCNN --layer_width 32",
        5,
        (Case("3 levels", "", 5, (*ALL, "sequential")),),
    ),
    "random_hierarchy": Experiment(
        "--dataset random_hierarchy --num_train_images 4000 --model TreeCNN --layer_width 64 "
        "--normalization unit_gaussian",
        3,
        (
            Case("1000", "--train_size 1000", 24),
            Case("2000", "--train_size 2000", 12),
            Case("4000", "", 6, (*ALL, "sequential")),
        ),
    ),
}


def train(words: list[str]) -> None:
    """In a child."""
    import main

    raise SystemExit(main.main(words))


def linear(words: list[str]) -> float:
    """Test accuracy (%) of a linear classifier with bias, by least squares on one-hot labels."""
    import torch
    from torch.nn.functional import one_hot

    import cli
    from datamodules import load_data

    args = cli.parse(words).args
    assert args is not None
    splits = load_data(args.data)
    (x_PD, y_P), (test_PD, test_P) = (
        (torch.cat((part.images_PHWC[:].flatten(1) / 127.5 - 1, torch.ones(part.num_images, 1)), 1), part.labels_P)
        for part in (splits.train, splits.test)
    )
    weight_DN = torch.linalg.lstsq(x_PD, one_hot(y_P).float(), driver="gelsd").solution
    return 100 * ((test_PD @ weight_DN).argmax(1) == test_P).float().mean().item()


def known() -> set[tuple[str, ...]]:
    """The runs that the table has."""
    if not TABLE.exists():
        return set()
    with TABLE.open() as file:
        return {tuple(row[name] for name in COLUMNS[:4]) for row in csv.DictReader(file)}


def plan(names: list[str]) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """The runs that are missing: what they are called in the table, and their command."""
    done = known()
    for name in names:
        words, num_layers, cases = EXPERIMENTS[name]
        for seed, case in product(SEEDS, cases):
            for rule in case.rules:
                epochs = case.epochs * (num_layers if rule == "sequential" else 1)
                flags = f"{COMMON} {words} --num_layers {num_layers} {case.words} --epochs {epochs} --seed {seed}"
                if (name, case.x, rule, seed) not in done:
                    yield (name, case.x, rule, seed), f"{flags} --data_seed {seed} {RULES.get(rule, '')}".split()


def study(folder: Path, names: list[str]) -> None:
    """Run them one after the other."""
    import torch

    import engine.trainer

    assert engine.trainer  # loaded before any child is forked
    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    for key, words in plan(names):
        begin, blocks, train_s = time.perf_counter(), "", 0.0
        if key[2] == LINEAR:
            accuracy = linear(words)
        else:
            name = "_".join(key).replace(" ", "")
            child = context.Process(target=train, args=([*words, "--path", str(folder), "--name", name],))
            child.start()
            child.join()
            if child.exitcode:
                raise SystemExit(f"failed: {' '.join(words)}")
            *_, written = sorted(folder.glob(f"*_{name}/summary.json"))
            summary = json.loads(written.read_text())
            accuracy, train_s = summary["final_test_accuracy"], summary["train_s"]
            blocks = " ".join("" if each is None else f"{each:.2f}" for each in summary["block_test_accuracy"]).strip()
        is_new = not TABLE.exists()
        with TABLE.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if is_new:
                writer.writerow(COLUMNS)
            wall_s = time.perf_counter() - begin
            writer.writerow([*key, f"{accuracy:.2f}", blocks, f"{train_s:.2f}", f"{wall_s:.2f}"])


if __name__ == "__main__":
    study(Path(sys.argv[1]), sys.argv[2:] or [*EXPERIMENTS])
