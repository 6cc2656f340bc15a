"""All peers train the same network: nothing about their speed is said here."""

from __future__ import annotations

import pytest
import torch

from benchmarks import peers
from benchmarks.peers import Setting
from benchmarks.worker import check_batches

SETTING = Setting("VGGs", batch_size=8, num_steps=2)


@pytest.fixture(scope="module")
def reference() -> list[float]:
    return peers.load("thesis", SETTING).losses(check_batches(SETTING))


def test_there_is_something_to_learn(reference: list[float]) -> None:
    assert sum(reference[-5:]) < 0.95 * sum(reference[:5])


@pytest.mark.parametrize(("name", "tolerance"), [("plain", 1e-5), ("tuned", 0.02), ("lightning", 0.02), ("dgl", 0.02)])
def test_every_peer_computes_what_the_thesis_computes(name: str, tolerance: float, reference: list[float]) -> None:
    losses = peers.load(name, SETTING).losses(check_batches(SETTING))
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(reference), rtol=tolerance, atol=0)


def test_back_propagation_is_another_training(reference: list[float]) -> None:
    losses = peers.load("bp", SETTING).losses(check_batches(SETTING))
    assert losses[0] == pytest.approx(reference[0], rel=0.02)  # the same weights before the first step
    assert losses[-1] != pytest.approx(reference[-1], rel=1e-4)


@pytest.mark.parametrize("name", ["tuned", "dgl", "bp", "dgl:pred_aux_type=linear"])
def test_a_turn_takes_time(name: str) -> None:
    assert peers.load(name, SETTING).train() > 0


def test_an_unknown_peer_is_refused() -> None:
    with pytest.raises(ValueError, match="allowed are thesis"):
        peers.load("fastest", SETTING)
