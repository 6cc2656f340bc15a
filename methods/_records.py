"""What a block of a local method leaves behind: its output with a graph, and what is kept of it without one."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from datamodules.base import Batch
from layers.rows import rows


class Hidden(NamedTuple):
    """A block's output with its graph, before its dropout and pool and behind them."""

    features_BCHW: Tensor
    out_BCHW: Tensor


def leading(x_BCHW: Tensor, batch: Batch) -> Tensor:
    """The part of ``x_BCHW`` that belongs to labelled images."""
    return rows(x_BCHW, 0, batch.y_B.shape[0])


def trailing(x_BCHW: Tensor, batch: Batch) -> Tensor:
    """The part of ``x_BCHW`` that belongs to images that a task appended last, as many as are labelled."""
    return rows(x_BCHW, len(x_BCHW) - batch.y_B.shape[0], len(x_BCHW))


def labelled(hidden: Hidden, batch: Batch) -> Hidden:
    """The part of ``hidden`` that belongs to labelled images."""
    return Hidden(*(leading(part, batch) for part in hidden))
