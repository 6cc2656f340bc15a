"""What a block of a local method leaves behind: its output with a graph, and what is kept of it without one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from consts import block_name
from datamodules.base import Batch
from layers.rows import rows
from methods._base import StepOutput


class Hidden(NamedTuple):
    """A block's output with its graph, before its dropout and pool and behind them."""

    features_BCHW: Tensor
    out_BCHW: Tensor


class BlockResult(NamedTuple):
    """What training a block on one batch gave, without a graph; ``parts`` are those of its loss, if any."""

    loss: Tensor
    logits_BN: Tensor | None
    parts: Mapping[str, Tensor]


def leading(x_BCHW: Tensor, batch: Batch) -> Tensor:
    """The part of ``x_BCHW`` that belongs to labelled images."""
    return rows(x_BCHW, 0, batch.y_B.shape[0])


def trailing(x_BCHW: Tensor, batch: Batch) -> Tensor:
    """The part of ``x_BCHW`` that belongs to images that a task appended last, as many as are labelled."""
    return rows(x_BCHW, len(x_BCHW) - batch.y_B.shape[0], len(x_BCHW))


def labelled(hidden: Hidden, batch: Batch) -> Hidden:
    """The part of ``hidden`` that belongs to labelled images."""
    return Hidden(*(leading(part, batch) for part in hidden))


def step_output(num_blocks: int, done: Mapping[int, BlockResult]) -> StepOutput:
    """What the blocks in ``done`` gave, as one output for ``num_blocks``; None for the others."""
    blocks = range(num_blocks)
    parts = {f"{block_name(index)}/{name}": value for index in done for name, value in done[index].parts.items()}
    logits = [done[index].logits_BN if index in done else None for index in blocks]
    return StepOutput(logits, [done[index].loss if index in done else None for index in blocks], parts)
