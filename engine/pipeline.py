"""Layer-parallel training in one process: stages of blocks in threads, a bounded queue between neighbours.

A stage hands on the output that its last block computed *before* its update, in order and without loss, and every
block's randomness is keyed by (seed, step, block). So each block sees exactly what it sees in the sequential run, and
the weights are the same bits, with the same number of threads inside an operation.
"""

from __future__ import annotations

import copy
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from consts import block_name
from datamodules.base import Batch
from engine.devices import autocast
from engine.meter import Meter, Totals
from methods._base import StepOutput
from methods._local import LocalMethod
from methods._records import BlockResult

QUEUE_LENGTH = 2  # batches between two stages; more would cost memory and win nothing once both are busy
_POLL_S = 0.2  # how soon a waiting stage learns that another one failed


class Item(NamedTuple):
    """What travels: a prepared batch and the output of the stage's last block on it."""

    step: int
    batch: Batch
    h_BCHW: Tensor


@dataclass
class Stage:
    """Blocks that one thread trains.

    Attributes:
        blocks: which.
        optimizer: a view of the run's optimiser with the groups of these blocks only; state is shared.
        busy_s: seconds of work so far, waiting left out.
    """

    blocks: range
    optimizer: torch.optim.Optimizer
    busy_s: float = 0.0
    inbox: queue.Queue[Item | None] = field(default_factory=lambda: queue.Queue(QUEUE_LENGTH))


class _Stopped(Exception):
    """Another stage failed; its error is the one that counts."""


class Pipeline:
    """Trains a method on ranges of steps, all stages at once; between two calls nothing is under way.

    Args:
        method: whose blocks learn on their own.
        stages: ranges of blocks, in order, covering all that train.
        optimizer: the run's, with a group for each of these blocks.
        precision: value of ``--precision``.
        seed_block: gives a block its randomness at a step.
        update: takes the optimiser step of a stage, with the rate and clipping of the step.
    """

    def __init__(
        self,
        method: LocalMethod,
        stages: Sequence[range],
        optimizer: torch.optim.Optimizer,
        precision: str,
        seed_block: Callable[[int, int], None],
        update: Callable[[torch.optim.Optimizer, int], None],
    ) -> None:
        self._method, self._precision = method, precision
        self._seed_block, self._update = seed_block, update
        self.stages = [Stage(blocks, self._view(optimizer, blocks)) for blocks in stages]
        threads = max(1, torch.get_num_threads() // len(stages))
        self._pool = ThreadPoolExecutor(len(stages), "stage", torch.set_num_threads, (threads,))
        self._failed = threading.Event()

    def _view(self, optimizer: torch.optim.Optimizer, blocks: range) -> torch.optim.Optimizer:
        view = copy.copy(optimizer)
        names = {block_name(index) for index in blocks}
        view.param_groups = [group for group in optimizer.param_groups if group["name"] in names]
        return view

    def run(
        self,
        steps: Sequence[int],
        batch: Callable[[int], Batch | None],
        before: Totals,
        advance: Callable[[int], None],
    ) -> Totals:
        """Train on ``steps`` and wait until every stage is done with all of them.

        Args:
            steps: numbers of the steps.
            batch: the batch of a step, or None to end early; called in the first stage's thread.
            before: totals to go on from.
            advance: called with every step that all stages are done with, in the last stage's thread.

        Returns:
            The totals.

        Raises:
            Exception: the first that a stage raised; the others stop.
        """
        self._failed.clear()
        for stage in self.stages:
            stage.inbox = queue.Queue(QUEUE_LENGTH)
        places = range(len(self.stages))
        jobs = [self._pool.submit(self._work, place, steps, batch, before, advance) for place in places]
        errors = [error for job in jobs if (error := job.exception()) is not None]
        for error in errors:
            if not isinstance(error, _Stopped):
                raise error
        parts = [job.result() for job in jobs]
        sums = {name: value for part in parts for name, value in part.sums.items()}
        return Totals(parts[-1].num_images, sums)

    @property
    def balance(self) -> float:
        """Share of the time of the busiest stage that the stages work on average; 1 is perfect."""
        busy = [stage.busy_s for stage in self.stages]
        return sum(busy) / (len(busy) * max(*busy, 1e-9))

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _work(
        self,
        place: int,
        steps: Sequence[int],
        batch: Callable[[int], Batch | None],
        before: Totals,
        advance: Callable[[int], None],
    ) -> Totals:
        """One stage, for all ``steps``."""
        stage, last = self.stages[place], place + 1 == len(self.stages)
        meter, count = Meter(_part(before, stage.blocks, last)), 0
        try:
            for step in steps:
                item = self._first(step, batch) if place == 0 else self._get(stage.inbox)
                if item is None:
                    break
                begin = time.perf_counter()
                h_BCHW, output = self._train(stage, item)
                meter.add(output, item.batch.y_B)
                stage.busy_s += time.perf_counter() - begin
                count += 1
                if last:
                    advance(step)
                else:
                    self._put(self.stages[place + 1].inbox, Item(step, item.batch, h_BCHW))
            if not last and count < len(steps):
                self._put(self.stages[place + 1].inbox, None)
            return meter.read()
        except BaseException:
            self._failed.set()
            raise

    def _first(self, step: int, batch: Callable[[int], Batch | None]) -> Item | None:
        drawn = batch(step)
        if drawn is None:
            return None
        begin = time.perf_counter()
        with autocast(drawn.x_BCHW.device, self._precision):
            prepared = self._method.prepare(drawn)
            item = Item(step, prepared, self._method.run_frozen(prepared.x_BCHW))
        self.stages[0].busy_s += time.perf_counter() - begin
        return item

    def _train(self, stage: Stage, item: Item) -> tuple[Tensor, StepOutput]:
        """Gradients of every block of the stage, then the stage's update."""
        h_BCHW = item.h_BCHW
        done: dict[int, BlockResult] = {}
        with autocast(h_BCHW.device, self._precision):
            for index in stage.blocks:
                self._seed_block(index, item.step)
                h_BCHW, done[index] = self._method.fill_block_grads(index, h_BCHW, item.batch)
        self._update(stage.optimizer, item.step)
        return h_BCHW, self._method.step_output(done)

    def _get(self, inbox: queue.Queue[Item | None]) -> Item | None:
        while not self._failed.is_set():
            try:
                return inbox.get(timeout=_POLL_S)
            except queue.Empty:
                continue
        raise _Stopped

    def _put(self, inbox: queue.Queue[Item | None], item: Item | None) -> None:
        while not self._failed.is_set():
            try:
                inbox.put(item, timeout=_POLL_S)
                return
            except queue.Full:
                continue
        raise _Stopped


def _part(totals: Totals, blocks: range, last: bool) -> Totals:
    """The totals of a stage's blocks; the last stage has those of the network as well."""
    names = {block_name(index) for index in blocks}
    sums = {
        name: value
        for name, value in totals.sums.items()
        if name.partition("/")[0] in names or (last and "/" not in name)
    }
    return Totals(totals.num_images, sums)
