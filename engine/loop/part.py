"""The part of a network that one worker trains: all of it, or (`engine.parallel.stage`) a range of blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.base import Batch
from engine.devices import autocast
from engine.loop.meter import Totals
from engine.loop.optimizer import update
from methods._base import Method, StepOutput


@dataclass(frozen=True)
class Rules:
    """How every part of a run is trained.

    Attributes:
        precision: value of ``--precision``.
        gradient_clip: largest norm of a block's gradient; 0 leaves gradients as they are.
        average: replaces the gradients of an optimiser's parameters by their mean over all replicas, if there are any.
        statistics: makes the context in which gradients are computed; it may give BatchNorm those of all replicas.
    """

    precision: str = "fp32"
    gradient_clip: float = 0.0
    average: Callable[[torch.optim.Optimizer], None] = lambda optimizer: None
    statistics: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext


class Part:
    """Blocks that are trained together; by default all of them, as the method trains them.

    A training step is `inputs`, then `learn`. Neither reads anything on the host that changes between steps, so that a
    step can be recorded.

    Args:
        method: the network with its training rule.
        optimizer: over the parameters of the part's blocks.
        rules: how they are trained.
        blocks: their indices.
    """

    def __init__(
        self, method: Method, optimizer: torch.optim.Optimizer, rules: Rules, blocks: range | None = None
    ) -> None:
        self.method, self.optimizer, self.rules = method, optimizer, rules
        self.blocks = range(method.backbone.num_blocks) if blocks is None else blocks

    def inputs(self, batch: Batch, h_BCHW: Tensor | None = None) -> tuple[Batch, Tensor]:
        """What `learn` needs; ``h_BCHW`` is the output of the part below, None for the first part."""
        return batch, batch.x_BCHW

    def fill_grads(self, batch: Batch, h_BCHW: Tensor) -> tuple[Tensor | None, StepOutput]:
        """Add the gradients of the part's parameters; arguments and result as those of `learn`."""
        return None, self.method.fill_grads(batch)

    def learn(self, batch: Batch, h_BCHW: Tensor, rate: float | Tensor) -> tuple[Tensor | None, StepOutput]:
        """Gradients of all blocks, then the optimiser's step.

        Args:
            batch: prepared, from `inputs`.
            h_BCHW: input of the part's first block.
            rate: the learning rate.

        Returns:
            The output of the part's last block, computed before the update (None where no block follows), and the
            losses and logits of the blocks.
        """
        result = self.compute(batch, h_BCHW)
        self.rules.average(self.optimizer)
        self.step(rate)
        return result

    def compute(self, batch: Batch, h_BCHW: Tensor) -> tuple[Tensor | None, StepOutput]:
        """`fill_grads` in the precision of the run."""
        with autocast(h_BCHW.device, self.rules.precision), self.rules.statistics():
            return self.fill_grads(batch, h_BCHW)

    def step(self, rate: float | Tensor) -> None:
        """Take the optimiser's step with the gradients in ``.grad``."""
        update(self.optimizer, rate, self.rules.gradient_clip)

    def part_of(self, totals: Totals) -> Totals:
        """The metrics that belong to the part's blocks."""
        return totals
