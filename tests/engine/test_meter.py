"""Sums of the metrics: each is that of its own block, and many blocks take no more operations than few."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from engine.loop.meter import batch_sums
from methods._base import StepOutput

NUM_IMAGES = 12


class Operations(TorchDispatchMode):
    """Counts what is dispatched."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **kwargs or {})


def output(num_blocks: int, dtype: torch.dtype = torch.float32) -> tuple[StepOutput, Tensor]:
    generator = torch.Generator().manual_seed(num_blocks)
    logits = [torch.randn(NUM_IMAGES, 5, generator=generator).to(dtype) for _ in range(num_blocks)]
    losses = [torch.rand((), generator=generator) for _ in range(num_blocks)]
    parts = {f"block_{index:02d}/part": torch.rand((), generator=generator) for index in range(num_blocks)}
    return StepOutput(logits, losses, parts), torch.randint(5, (NUM_IMAGES,), generator=generator)


def check(found: StepOutput, y_B: Tensor) -> None:
    """Names in their order (a checkpoint keeps it) and values, against one block after the other."""
    expected: dict[str, Tensor] = {}
    for index, (loss, logits_BN) in enumerate(zip(found.losses, found.logits, strict=True)):
        prefixes = [f"block_{index:02d}/"] + [""] * (index == len(found.logits) - 1)
        if loss is not None:
            expected |= {f"{prefix}loss": (loss * NUM_IMAGES).double() for prefix in prefixes}
        if logits_BN is not None:
            expected |= {f"{prefix}accuracy": (logits_BN.argmax(1) == y_B).sum().double() for prefix in prefixes}
    expected |= {name: (value * NUM_IMAGES).double() for name, value in found.metrics.items()}
    names, sums_M = batch_sums(found, y_B)
    assert names == list(expected)
    assert sums_M.dtype == torch.float64
    assert torch.equal(sums_M, torch.stack([*expected.values()]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_sums_have_the_bits_of_one_block_after_the_other(dtype: torch.dtype) -> None:
    check(*output(4, dtype))


def test_blocks_without_loss_or_exit_and_of_other_classes_and_types_are_told_apart() -> None:
    found, y_B = output(5)
    logits, losses = [*found.logits], [*found.losses]
    losses[0] = logits[1] = losses[2] = logits[2] = None
    logits[3] = torch.randn(NUM_IMAGES, 9)
    losses[3] = torch.rand((), dtype=torch.float64)
    logits[4] = torch.randn(NUM_IMAGES, 5, dtype=torch.float64)
    check(StepOutput(logits, losses, found.metrics), y_B)


def test_a_network_without_exits_has_no_sums() -> None:
    names, sums_M = batch_sums(StepOutput([None], [None]), torch.zeros(3, dtype=torch.int64))
    assert (names, sums_M.shape, sums_M.dtype) == ([], (0,), torch.float64)


def test_the_number_of_operations_does_not_grow_with_the_number_of_blocks() -> None:
    counts = []
    for num_blocks in (2, 16):
        found = output(num_blocks)
        with Operations() as operations:
            batch_sums(*found)
        counts.append(operations.count)
    assert counts[0] == counts[1] <= 11
