"""Layer-parallel training in one process: stages of blocks in threads, a bounded queue between neighbours.

A stage hands on the output that its last block computed *before* its update, in order and without loss, and every
block's randomness is keyed by (seed, step, block). So each block sees exactly what it sees in the sequential run, and
the weights are the same bits, with the same number of threads inside an operation.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch

from engine.loop.meter import Meter, Totals
from engine.parallel.replay import ReplayBuffer
from engine.parallel.stage import Course, Item, Stage, balance, joined, part_of

QUEUE_LENGTH = 2  # batches between two stages; more would cost memory and win nothing once both are busy
_POLL_S = 0.2  # how soon a waiting stage learns that another one failed


class Link(Protocol):
    """What lies between two stages: `queue.Queue`, or a `ReplayBuffer` that reuses and drops."""

    def put(self, item: Item | None, block: bool = True, timeout: float | None = None) -> None:
        """Hand over, None for the end; queue.Full where there is no room for so long."""

    def get(self, block: bool = True, timeout: float | None = None) -> Item | None:
        """Take; queue.Empty where there is nothing for so long."""


class _Stopped(Exception):
    """Another stage failed; its error is the one that counts."""


class Threads:
    """A `Layout` in one process.

    Args:
        stages: in order, covering all blocks that train.
        async_buffer: batches that a link keeps, with reuse and drop; 0 for lossless queues.
    """

    def __init__(self, stages: Sequence[Stage], async_buffer: int = 0) -> None:
        self.stages = stages
        self._replay = [ReplayBuffer[Item](async_buffer) for _ in stages] if async_buffer else []
        self._inbox = self._links()
        threads = max(1, torch.get_num_threads() // len(stages))
        self._pool = ThreadPoolExecutor(len(stages), "stage", torch.set_num_threads, (threads,))
        self._failed = threading.Event()

    def run(self, course: Course) -> Totals:
        """As `Layout.run`; ``batch`` is called in the first stage's thread, ``advance`` in the last one's."""
        self._failed.clear()
        self._inbox = self._links()

        def first(step: int) -> Item | None:
            return None if course.is_stopped() else self.stages[0].first_item(step, course.batch(step))

        places = range(len(self.stages))
        jobs = [self._pool.submit(self._work, place, course, first) for place in places]
        errors = [error for job in jobs if (error := job.exception()) is not None]
        for error in errors:
            if not isinstance(error, _Stopped):
                raise error
        return joined([job.result() for job in jobs])

    def _links(self) -> Sequence[Link]:
        """By stage what its input comes from; what a replay buffer holds stays from one range of steps to the next."""
        return self._replay or [queue.Queue[Item | None](QUEUE_LENGTH) for _ in self.stages]

    @property
    def balance(self) -> float:
        """As `Layout.balance`."""
        return balance([stage.busy_s for stage in self.stages])

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _work(self, place: int, course: Course, first: Callable[[int], Item | None]) -> Totals:
        """One stage, for all steps."""
        stage, is_last = self.stages[place], place + 1 == len(self.stages)
        meter, count = Meter(part_of(course.before, stage.blocks, is_last=is_last)), 0
        try:
            for step in course.steps:
                item = first(step) if place == 0 else self._get(self._inbox[place])
                if item is None:
                    break
                h_BCHW, output = stage.train(item._replace(step=step))
                meter.add(output, item.batch.y_B)
                count += 1
                if is_last:
                    course.advance(step)
                else:
                    self._put(self._inbox[place + 1], Item(step, item.batch, h_BCHW))
            if not is_last and count < len(course.steps):
                self._put(self._inbox[place + 1], None)
            return meter.read()
        except BaseException:
            self._failed.set()
            raise

    def _get(self, inbox: Link) -> Item | None:
        while not self._failed.is_set():
            try:
                return inbox.get(timeout=_POLL_S)
            except queue.Empty:
                continue
        raise _Stopped

    def _put(self, inbox: Link, item: Item | None) -> None:
        while not self._failed.is_set():
            try:
                inbox.put(item, timeout=_POLL_S)
                return
            except queue.Full:
                continue
        raise _Stopped
