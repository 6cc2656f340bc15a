"""Layer-parallel training in one process: a thread for each stage, a bounded queue between neighbours.

A stage passes on the output that its last block computed *before* its update, in order and without loss, and every
block's randomness is keyed by (seed, step, block). So each block sees exactly what it sees in the sequential run, and
the weights have the same bits if torch uses as many threads inside an operation.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch

from engine.loop.eager import Item, Worker
from engine.loop.layout import Course, Layout
from engine.loop.meter import Meter, Totals
from engine.loop.steps import Steps
from engine.parallel.replay import ReplayBuffer
from engine.parallel.stage import Stage, balance, joined

QUEUE_LENGTH = 2  # batches between two stages; more would cost memory and not be faster
_POLL_S = 0.2  # how soon a waiting stage notices that another one failed


class Link(Protocol):
    """What lies between two stages: `queue.Queue`, or a `ReplayBuffer` that reuses and drops."""

    def put(self, item: Item | None, block: bool = True, timeout: float | None = None) -> None:
        """Add an item, None for the end; raises queue.Full after ``timeout`` seconds without room."""

    def get(self, block: bool = True, timeout: float | None = None) -> Item | None:
        """Remove and return an item; raises queue.Empty after ``timeout`` seconds without one."""


class _Stopped(Exception):
    """Another stage failed; its error is the one to report."""


class Threads(Layout):
    """A thread for each stage.

    Args:
        stages: in order, covering all blocks that train.
        steps: of the run.
        async_buffer: batches that a link keeps, with reuse and drop; 0 for lossless queues.
    """

    def __init__(self, stages: Sequence[Stage], steps: Steps, async_buffer: int = 0) -> None:
        self._stages, self._steps = stages, steps
        self._workers = [Worker(stage, steps) for stage in stages]
        self._replay = [ReplayBuffer[Item](async_buffer) for _ in stages] if async_buffer else []
        self._inbox = self._links()
        threads = max(1, torch.get_num_threads() // len(stages))
        self._pool = ThreadPoolExecutor(len(stages), "stage", torch.set_num_threads, (threads,))
        self._failed = threading.Event()

    def run(self, course: Course) -> Totals:
        """As `Layout.run`; ``is_stopped`` is called in the first stage's thread, ``advance`` in the last one's.

        Raises:
            Exception: the first that a stage raised; the others stop.
        """
        self._failed.clear()
        self._inbox = self._links()

        def first(step: int) -> Item | None:
            return None if course.is_stopped() else self._workers[0].item(step, self._steps.batch(step))

        jobs = [self._pool.submit(self._work, place, course, first) for place in range(len(self._stages))]
        errors = [error for job in jobs if (error := job.exception()) is not None]
        for error in errors:
            if not isinstance(error, _Stopped):
                raise error
        return joined([job.result() for job in jobs])

    def _links(self) -> Sequence[Link]:
        """The input of each stage; replay buffers keep their contents from one call of `run` to the next."""
        return self._replay or [queue.Queue[Item | None](QUEUE_LENGTH) for _ in self._stages]

    @property
    def balance(self) -> float:
        """As `Layout.balance`."""
        return balance([worker.busy_s for worker in self._workers])

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _work(self, place: int, course: Course, first: Callable[[int], Item | None]) -> Totals:
        """Train one stage on all steps."""
        worker, meter, count = self._workers[place], Meter(self._stages[place].part_of(course.before)), 0
        try:
            for step in course.steps:
                item = first(step) if place == 0 else self._get(self._inbox[place])
                if item is None:
                    break
                h_BCHW = worker.take(item._replace(step=step), meter)
                count += 1
                if h_BCHW is None:
                    course.advance(step)
                else:
                    self._put(self._inbox[place + 1], Item(step, item.batch, h_BCHW))
            if place + 1 < len(self._stages) and count < len(course.steps):
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
