"""The memory of a command: at least what is known to be there."""

from __future__ import annotations

import pytest

from benchmarks.footprint import footprint
from datamodules.base import DataSpec
from networks import build_backbone
from schemas import ModelArgs
from utils import UsageError


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "x"], "allowed are the flags of a training run"),
        (
            ["--dgl", "--precision", "fp32", "--layer_parallel", "threads"],
            "--num_replicas and --compile have no effect",
        ),
        (["--bp", "--precision", "fp32", "--num_replicas", "2"], "--num_replicas and --compile have no effect"),
        (["--dgl"], "--precision auto: the memory goes by it; give fp32 or bf16"),
        (["--dgl", "--precision", "fp32", "--device", "cuda:99"], "--device cuda:99: this machine has"),
    ],
)
def test_what_is_not_a_training_run_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        footprint(words)


def test_weights_gradients_and_momentum_are_in_it() -> None:
    """With two small images they are nearly all: three numbers for each parameter."""
    spec = DataSpec("random", 3, 32, 32, tuple("0123456789"), (0.5,) * 3, (0.5,) * 3)
    network = build_backbone(ModelArgs(model="VGG11"), spec)
    known_mib = sum(parameter.numel() for parameter in network.parameters()) * 3 * 4 / 2**20
    flags = "--bp --model VGG11 --batch_size 2 --precision fp32 --device cpu --momentum 0.9"
    assert known_mib < footprint(flags.split()) < 1.5 * known_mib
