"""A stage of the pipeline: neighbouring blocks of a local method, trained together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from consts import block_name
from datamodules.base import Batch
from engine.devices import autocast
from engine.loop.meter import Totals
from engine.loop.optimizer import optimizer_of
from engine.loop.part import Part, Rules
from methods._base import BlockResult, StepOutput, step_output
from methods._local import LocalMethod


class Stage(Part):
    """A `Part` of neighbouring blocks.

    Args:
        method: its blocks learn from losses of their own.
        blocks: which of them.
        optimizer: the run's; the stage steps the parameter groups of its blocks only.
        rules: the same for all stages.
    """

    method: LocalMethod

    def __init__(self, method: LocalMethod, blocks: range, optimizer: torch.optim.Optimizer, rules: Rules) -> None:
        super().__init__(method, optimizer_of(optimizer, blocks), rules, blocks)

    def inputs(self, batch: Batch, h_BCHW: Tensor | None = None) -> tuple[Batch, Tensor]:
        """The batch with what self-supervised tasks add to it; the first stage gets the output of the frozen blocks."""
        with autocast(batch.x_BCHW.device, self.rules.precision):
            batch = self.method.prepare(batch)
            return batch, self.method.run_frozen(batch.x_BCHW) if h_BCHW is None else h_BCHW

    def fill_grads(self, batch: Batch, h_BCHW: Tensor) -> tuple[Tensor | None, StepOutput]:
        """The gradients of each block's own loss."""
        done: dict[int, BlockResult] = {}
        for index in self.blocks:
            h_BCHW, done[index] = self.method.fill_block_grads(index, h_BCHW, batch)
        is_last = self.blocks[-1] == self.method.last
        return None if is_last else h_BCHW, step_output(self.method.backbone.num_blocks, done)

    def part_of(self, totals: Totals) -> Totals:
        """The metrics of the stage's blocks; the last stage also has those of the network."""
        names, is_last = {block_name(index) for index in self.blocks}, self.blocks[-1] == self.method.last
        sums = {
            name: value
            for name, value in totals.sums.items()
            if name.partition("/")[0] in names or (is_last and "/" not in name)
        }
        return Totals(totals.num_images, sums)


def joined(parts: Sequence[Totals]) -> Totals:
    """The metrics of all stages, in their order."""
    return Totals(parts[-1].num_images, {name: value for part in parts for name, value in part.sums.items()})


def balance(busy_s: Sequence[float]) -> float:
    """As `Layout.balance`, from the busy seconds of each stage."""
    return sum(busy_s) / (len(busy_s) * max(*busy_s, 1e-9))
