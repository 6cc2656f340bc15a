"""A loss, weight or statistic that is not finite ends the run soon, by name, and is never saved."""

from __future__ import annotations

import math
import re
import signal
from functools import partial
from pathlib import Path

import pytest
import torch

from engine.loop.finite import FiniteCheck
from engine.loop.meter import Totals
from tests.faults import inject
from tests.faults.conftest import last_state, only_run, status
from tests.faults.process import SMALL, finish
from utils import UserError


def tensors(value: object) -> list[torch.Tensor]:
    if isinstance(value, dict):
        return [tensor for part in value.values() for tensor in tensors(part)]
    return [value] if isinstance(value, torch.Tensor) else []


def assert_saved_is_finite(path: Path) -> None:
    files = sorted((path / "checkpoints").iterdir())
    assert files
    for file in files:
        assert all(bool(tensor.isfinite().all()) for tensor in tensors(last_state(path, file.name))), file


# A log line every two steps, five steps an epoch: the loss of step 8 is the first to show what step 7 did.
@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize(("row", "block"), [("dgl", "block_01"), ("bp", "block_02")])
def test_found_within_an_interval_and_named(row: str, block: str, value: float, tmp_path: Path) -> None:
    run = finish([*SMALL, f"--{row}"], tmp_path, partial(inject.poison, 6, "1.features.0.weight", value))
    [line] = run.errors()
    assert run.exit_code() == 1
    where, step = re.search(r"the loss of (\w+) is not finite at step (\d+);", line).groups()
    assert (where, int(step)) == (block, 8)
    path = only_run(tmp_path)
    assert (status(path), last_state(path)["step"]) == ("failed", 5)
    assert_saved_is_finite(path)


def test_a_weight_of_the_last_step_before_a_save_is_not_saved(tmp_path: Path) -> None:
    run = finish([*SMALL, "--dgl"], tmp_path, partial(inject.poison, 9, "1.features.0.weight", math.nan))
    [line] = run.errors()
    assert (run.exit_code(), "a value in block_01 is not finite at step 10" in line) == (1, True)
    assert last_state(only_run(tmp_path))["step"] == 5
    assert_saved_is_finite(only_run(tmp_path))


def test_a_statistic_is_looked_at_as_well(tmp_path: Path) -> None:
    run = finish([*SMALL, "--dgl"], tmp_path, partial(inject.poison, 9, "2.features.1.running_var", math.inf))
    [line] = run.errors()
    assert "a value in backbone.blocks.2.features.1.running_var is not finite at step 10" in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_does_not_save_it(number: int, tmp_path: Path) -> None:
    run = finish([*SMALL, "--dgl", "--log_interval", "5"], tmp_path, partial(inject.poison_and_signal, 6, number))
    [line] = run.errors()
    assert (run.exit_code(), "is not finite at step 7" in line) == (1, True)
    assert last_state(only_run(tmp_path))["step"] == 5
    assert_saved_is_finite(only_run(tmp_path))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("loss", "the loss of the network is not finite"),
        ("block_01/loss", "the loss of block_01 is not finite"),
        ("block_00/ssl_loss", "the ssl_loss of block_00 is not finite"),
        ("block_01/energy", "the energy of block_01 rises while it is relaxed, or is not finite,"),
    ],
)
def test_names_of_losses(name: str, words: str) -> None:
    network = torch.nn.Linear(1, 1)
    check = FiniteCheck(network, torch.optim.SGD(network.parameters()), Path("kept"))
    totals = Totals(1, {"accuracy": math.nan, "block_02/loss": 1.0, name: math.nan})
    with pytest.raises(UserError, match=f"^{words} at step 7;.* kept in kept$"):
        check.totals(totals, 7)
