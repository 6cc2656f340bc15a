"""Runs on generated data through the real entry point: trained, resumed, evaluated, and other data refused."""

from __future__ import annotations

import signal

import pytest

import main
from tests.engine.conftest import Runner
from tests.engine.test_resume import stop_after

COMMON = "--num_train_images 300 --num_test_images 60 --batch_size 50 --epochs 2 --device cpu --precision fp32 --dgl"
CIRCUIT = "--dataset boolean_circuit --model TreeLC --layer_width 4 --num_layers"


def train(run: Runner, *words: str) -> int:
    return main.main([*COMMON.split(), "--wandb", "disabled", "--path", str(run.path), *words])


@pytest.mark.parametrize("optimizer", ["SGD", "SignSGD", "Rprop"])
def test_a_run_that_is_resumed_has_the_bits_of_one_that_was_not(run: Runner, same, optimizer: str, monkeypatch) -> None:
    words = [*CIRCUIT.split(), "2", "--optimizer_type", optimizer, "--learning_rate", "0.001"]
    assert train(run, *words) == 0
    whole = run.state()
    assert run.summary()["dataset"] == "boolean_circuit" and len(run.summary()["block_test_accuracy"]) == 2

    with monkeypatch.context() as patch:
        stop_after(7, signal.SIGINT, patch)
        assert train(run, *words) == 130
    assert run.resume(str(run.last)) == 0
    same(whole, run.state())


def test_other_data_are_refused_when_a_run_goes_on(run: Runner, capsys) -> None:
    assert train(run, *CIRCUIT.split(), "2") == 0
    capsys.readouterr()
    assert run.resume(str(run.last), "--data_seed", "1") == 2
    assert "--data_seed 1: the run was started with 0, and another value would change it" in capsys.readouterr().err
    assert main.main(["evaluate", str(run.last), "--linear", "--data_dir", "elsewhere"]) == 2
    assert main.main(["evaluate", str(run.last), "--linear"]) == 0


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        ("--dataset random_hierarchy --model TreeCNN --num_layers 3 --normalization unit_gaussian", 3),
        ("--dataset hierarchical_digits --digit_levels 2 --model VGGs --train_size 100 --val_size 40", 3),
        ("--dataset parity --model MLP --num_layers 1", 1),
    ],
)
def test_diagnostics_and_plots_are_of_the_data(run: Runner, words: str, rows: int) -> None:
    assert train(run, *words.split(), "--diagnostics", "alignment,probes,filters,cka,confusion") == 0
    assert len(run.summary()["block_test_accuracy"]) == rows
    fields = {"MLP": [None], "VGGs": [4, 10, 22], "TreeCNN": [None] * 3}
    assert [block["receptive_field"] for block in run.summary()["blocks"]] == fields[run.summary()["model"]]


def test_images_that_no_network_fits_leave_no_run(run: Runner, capsys) -> None:
    assert train(run, *CIRCUIT.split(), "5") == 2
    assert "--model TreeLC: with --num_layers 5 and --patch_size 2 the sides" in capsys.readouterr().err
    assert train(run, "--dataset", "boolean_circuit", "--model", "VGGs") == 2
    assert "these images are 1x16: choose one with fewer pools" in capsys.readouterr().err
    assert run.folders == []


@pytest.mark.parametrize(("size", "warned"), [("100", True), ("200", False)])
def test_rprop_on_part_of_the_images_warns(run: Runner, capsys, size: str, warned: bool) -> None:
    words = ["--dataset", "parity", "--model", "MLP", "--num_train_images", "200", "--num_test_images", "50"]
    words += ["--epochs", "1", "--optimizer_type", "Rprop", "--device", "cpu", "--batch_size", size]
    assert main.main([*words, "--wandb", "disabled", "--path", str(run.path)]) == 0
    said = "Rprop compares gradients of all images, and a batch has 100 of 200: give --batch_size 200, or another"
    assert (said in capsys.readouterr().out) == warned
