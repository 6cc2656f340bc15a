"""--init_from RUN: what is taken of another run, what is fresh, and what is refused."""

from __future__ import annotations

import re

import pytest
import torch

import cli
import main
from engine.start import assemble
from tests.engine.test_threads import after

POOLED = ["--pred_aux_type", "pooled"]
SHORT = ["--epochs", "1", "--train_size", "64"]


def initial(run, *words: str) -> tuple[dict, dict]:
    """Weights before the first step, with and without the first run's as initial ones."""
    given = ["--dataset", "digits", "--model", "VGGs", *words]
    args = cli.parse(given).args
    return assemble(args, initial=run.folders[0])[0].state_dict(), assemble(args)[0].state_dict()


def taken(run, *words: str) -> set[str]:
    """The parts of the network and the heads that begin with the weights of the first run."""
    theirs, (own, fresh) = run.state(run.folders[0], "best.ckpt")["method"], initial(run, *words)
    for name, value in own.items():
        assert torch.equal(value, theirs[name] if name in theirs and torch.equal(value, theirs[name]) else fresh[name])
    changed = [name for name, value in own.items() if not torch.equal(value, fresh[name])]
    return {re.match(r"backbone\.\w+\.\d+|\w+\.\w+", name)[0] for name in changed}


BLOCKS = {f"backbone.blocks.{index}" for index in range(3)}


def test_blocks_classifier_and_heads_are_taken_where_they_fit(run) -> None:
    assert run("--dgl", *POOLED, *SHORT) == 0
    classifier = {"backbone.classifier.1", "backbone.classifier.3"}
    assert taken(run, "--bp") == BLOCKS | classifier
    assert taken(run, "--fa") == BLOCKS | classifier
    assert taken(run, "--bp", "--mlp_hidden_dim", "17") == BLOCKS
    heads = taken(run, "--dgl", *POOLED) - BLOCKS - classifier
    assert len(heads) == 2
    assert taken(run, "--dgl", *POOLED, "--aux_mlp_hidden_dim", "17") == BLOCKS | classifier


def test_a_run_without_steps_of_its_own_has_the_accuracy_of_the_other(run, capsys) -> None:
    assert run("--dgl", *SHORT, "--epochs", "3") == 0
    first = run.last
    assert run("--bp", *SHORT, "--init_from", str(first), "--learning_rate", "1e-30", "--weight_decay", "0") == 0
    said = capsys.readouterr().out
    assert f"Initial weights of {first} (best): 3 blocks, classifier\n" in said
    theirs, own = run.state(first, "best.ckpt")["method"], run.state()["method"]
    assert all(torch.equal(own[name], theirs[name]) for name in own if name.endswith(("weight", "bias")))
    assert cli.args_of_run(run.last).model.init_from == str(first)


def test_a_resumed_run_needs_the_other_no_longer(run, same, monkeypatch) -> None:
    assert run("--dgl", *SHORT) == 0
    first = run.last
    assert run("--dgl", "--init_from", str(first)) == 0
    whole = run.state()
    with monkeypatch.context() as patch:
        after(6, patch)
        assert run("--dgl", "--init_from", str(first)) == 143
    first.rename(first.with_name("gone"))
    begun = run.last
    assert run.resume(str(begun)) == 0
    same(whole, run.state(begun))
    assert main.main(["evaluate", str(begun), "--device", "cpu"]) == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--init_from", "none"], 2, "--init_from none: no run folder there (it would hold config.yaml)"),
        (
            ["--init_from", "RUN", "--model", "VGGsw"],
            1,
            "features.0.weight of block_00 is of shape (8, 1, 3, 3) in that",
        ),
        (["--init_from", "RUN", "--model", "VGG8c"], 1, "blocks must be those of VGGs without --num_modules"),
        (["--init_from", "LOST"], 1, "there is no checkpoint"),
    ],
)
def test_what_does_not_fit_is_one_line(run, words: list[str], code: int, message: str, capsys) -> None:
    assert run("--dgl", *SHORT) == 0
    (run.path / "lost").mkdir()
    (run.path / "lost" / "config.yaml").touch()
    places, before = {"RUN": str(run.folders[0]), "LOST": str(run.path / "lost")}, len(run.folders)
    capsys.readouterr()
    assert run("--bp", *SHORT, *(places.get(word, word) for word in words)) == code
    [line] = capsys.readouterr().err.splitlines()
    assert message in line and len(run.folders) == before
