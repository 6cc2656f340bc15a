"""A stage: neighbouring blocks that are trained together, whoever brings them their input."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from consts import block_name
from datamodules.base import Batch
from engine.devices import autocast
from engine.loop.meter import Totals
from methods._base import BlockResult, StepOutput, step_output
from methods._local import LocalMethod


class Item(NamedTuple):
    """What a stage works on: a prepared batch and the output of the block below its first on it."""

    step: int
    batch: Batch
    h_BCHW: Tensor


@dataclass(frozen=True)
class Rules:
    """How a stage trains; the same for all of a run.

    Attributes:
        method: whose blocks learn on their own.
        precision: value of ``--precision``.
        seed_block: gives a block its randomness at a step.
        update: takes the optimiser step of a stage, with the rate and clipping of the step.
        average: brings the gradients of these parameters to their mean over all replicas of the stage, or does nothing.
    """

    method: LocalMethod
    precision: str
    seed_block: Callable[[int, int], None]
    update: Callable[[torch.optim.Optimizer, int], None]
    average: Callable[[torch.optim.Optimizer], None] = lambda optimizer: None


@dataclass(frozen=True)
class Course:
    """A range of steps to take.

    Attributes:
        steps: their numbers, all of one epoch.
        batch: the batch of a step.
        before: totals to go on from.
        advance: called with every step when it is done.
        is_stopped: asked before every step whether to end early.
    """

    steps: Sequence[int]
    batch: Callable[[int], Batch]
    before: Totals
    advance: Callable[[int], None]
    is_stopped: Callable[[], bool]


class Layout(Protocol):
    """Where the stages of a run are: it trains them on ranges of steps; between two calls nothing is under way."""

    def run(self, course: Course) -> Totals:
        """Take the steps of ``course`` and wait until every stage is done with all of them.

        Returns:
            The totals.

        Raises:
            Exception: the first that a stage raised; the others stop.
        """

    @property
    def balance(self) -> float | None:
        """Share of the time of the busiest stage that the stages work on average; 1 is perfect, None unknown."""

    def close(self) -> None:
        """Let go of threads and buffers."""


class Stage:
    """Blocks that are trained in one place.

    Attributes:
        blocks: which.
        optimizer: a view of the run's optimiser with the groups of these blocks only; state is shared.
        busy_s: seconds of work so far, waiting left out.
        delay_s: seconds by which every step is held up, to see what a slow stage does.
    """

    def __init__(self, rules: Rules, blocks: range, optimizer: torch.optim.Optimizer, delay_s: float = 0.0) -> None:
        self._rules, self.blocks, self.delay_s = rules, blocks, delay_s
        self.optimizer = optimizer_of(optimizer, blocks)
        self.busy_s = 0.0

    def prepare(self, batch: Batch) -> Batch:
        """The batch as the blocks see it, the same for all stages."""
        with autocast(batch.x_BCHW.device, self._rules.precision):
            return self._rules.method.prepare(batch)

    def first_item(self, step: int, batch: Batch) -> Item:
        """What the first stage works on: the batch prepared, and what the frozen blocks make of it."""
        begin = time.perf_counter()
        prepared = self.prepare(batch)
        with autocast(batch.x_BCHW.device, self._rules.precision):
            item = Item(step, prepared, self._rules.method.run_frozen(prepared.x_BCHW))
        self.busy_s += time.perf_counter() - begin
        return item

    def train(self, item: Item) -> tuple[Tensor, StepOutput]:
        """Gradients of every block, then the update.

        Returns:
            The output of the last block from before the update, and what the blocks gave.
        """
        begin, rules = time.perf_counter(), self._rules
        h_BCHW = item.h_BCHW
        done: dict[int, BlockResult] = {}
        with autocast(h_BCHW.device, rules.precision):
            for index in self.blocks:
                rules.seed_block(index, item.step)
                h_BCHW, done[index] = rules.method.fill_block_grads(index, h_BCHW, item.batch)
        rules.average(self.optimizer)
        rules.update(self.optimizer, item.step)
        if self.delay_s:
            time.sleep(self.delay_s)
        self.busy_s += time.perf_counter() - begin
        return h_BCHW, step_output(rules.method.backbone.num_blocks, done)


def optimizer_of(optimizer: torch.optim.Optimizer, blocks: range) -> torch.optim.Optimizer:
    """A view with the groups of ``blocks`` only."""
    view, names = copy.copy(optimizer), {block_name(index) for index in blocks}
    view.param_groups = [group for group in optimizer.param_groups if group["name"] in names]
    return view


def balance(busy_s: Sequence[float]) -> float:
    """The mean of the stages' working times over the longest."""
    return sum(busy_s) / (len(busy_s) * max(*busy_s, 1e-9))


def part_of(totals: Totals, blocks: range, *, is_last: bool) -> Totals:
    """The totals of a stage's blocks; the last stage has those of the network as well."""
    names = {block_name(index) for index in blocks}
    sums = {
        name: value
        for name, value in totals.sums.items()
        if name.partition("/")[0] in names or (is_last and "/" not in name)
    }
    return Totals(totals.num_images, sums)


def joined(parts: Sequence[Totals]) -> Totals:
    """The totals of all stages, in their order."""
    return Totals(parts[-1].num_images, {name: value for part in parts for name, value in part.sums.items()})
