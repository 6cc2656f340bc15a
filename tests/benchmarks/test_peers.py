"""All peers train the same network: nothing about their speed is said here."""

from __future__ import annotations

import argparse

import pytest
import torch
from torch import nn

from benchmarks import peers
from benchmarks.peers import Setting
from benchmarks.peers.by_hand import network
from layers.convolution import Conv2d
from layers.pooling import AvgPool2d

SETTING = Setting("VGGs", batch_size=8, num_steps=2)


@pytest.fixture(scope="module")
def reference() -> list[float]:
    return peers.load("thesis", SETTING).losses()


def test_there_is_something_to_learn(reference: list[float]) -> None:
    assert sum(reference[-5:]) < 0.95 * sum(reference[:5])


@pytest.mark.parametrize(("name", "tolerance"), [("plain", 1e-5), ("tuned", 0.02), ("lightning", 0.02), ("dgl", 0.02)])
def test_every_peer_computes_what_the_thesis_computes(name: str, tolerance: float, reference: list[float]) -> None:
    losses = peers.load(name, SETTING).losses()
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(reference), rtol=tolerance, atol=0)


def test_back_propagation_is_another_training(reference: list[float]) -> None:
    losses = peers.load("bp", SETTING).losses()
    assert losses[0] == pytest.approx(reference[0], rel=0.02)  # the same weights before the first step
    assert losses[-1] != pytest.approx(reference[-1], rel=1e-4)


@pytest.mark.parametrize("name", ["tuned", "dgl", "bp", "dgl:pred_aux_type=linear"])
def test_a_turn_takes_time(name: str) -> None:
    assert peers.load(name, SETTING).train() > 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fastest", "allowed are thesis"), ("tuned:batch_size=3", "allowed are thesis"), ("dgl:", "allowed are thesis"),
        ("dgl:pred_aux_type", "allowed are thesis"), ("dgl:heads=2", "dgl has no flag heads"),
        ("dgl:pred_aux_type=best", "Input should be"),
    ],
)  # fmt: skip
def test_an_unknown_peer_is_refused(name: str, said: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=said):
        peers.known(name)


@pytest.mark.parametrize("name", ["thesis", "bp", "dgl:pred_aux_type=cnn,batch_size=32"])
def test_a_known_peer_is_taken(name: str) -> None:
    assert peers.known(name) == name


def test_the_other_hands_have_torchs_own_layers() -> None:
    blocks, heads = network("VGG11")
    kinds = {type(layer) for part in (*blocks, *heads) for layer in part.modules()}
    assert {nn.Conv2d, nn.AvgPool2d} <= kinds
    assert not {Conv2d, AvgPool2d} & kinds


@pytest.mark.parametrize(("name", "found"), [("dgl:precision=fp32", {"fp32"}), ("bp", {"fp32", "bf16"})])
def test_a_precision_that_was_asked_for_is_that_of_the_peer(name: str, found: set[str]) -> None:
    assert peers.load(name, SETTING)._run.args.run.precision in found
