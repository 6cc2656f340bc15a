"""Eager training steps: each is computed operation by operation as Python reaches it."""

from __future__ import annotations

import time
from typing import NamedTuple

from torch import Tensor

from datamodules.base import Batch
from engine.loop.layout import Course, Layout
from engine.loop.meter import Meter, Totals
from engine.loop.part import Part
from engine.loop.steps import Steps


class Item(NamedTuple):
    """Input of a part at a step: the prepared batch, and the output of the block below the part's first."""

    step: int
    batch: Batch
    h_BCHW: Tensor


class Worker:
    """Takes the steps of one part.

    Attributes:
        part: what it trains.
        steps: where batches, seeds and learning rates come from.
        busy_s: seconds of work so far, without waiting for input.
    """

    def __init__(self, part: Part, steps: Steps) -> None:
        self.part, self.steps, self.busy_s = part, steps, 0.0

    def item(self, step: int, batch: Batch, h_BCHW: Tensor | None = None) -> Item:
        """As `Part.inputs`; to be called right after `Steps.batch`, whose seed the method draws with."""
        begin = time.perf_counter()
        item = Item(step, *self.part.inputs(batch, h_BCHW))
        self.busy_s += time.perf_counter() - begin
        return item

    def take(self, item: Item, meter: Meter) -> Tensor | None:
        """Take one step, and count its metrics; returns the output as `Part.learn`."""
        begin = time.perf_counter()
        self.steps.seed_blocks(self.part.blocks, item.step)
        out_BCHW, output = self.part.learn(item.batch, item.h_BCHW, self.steps.rate(item.step))
        meter.add(output, item.batch.y_B)
        self.busy_s += time.perf_counter() - begin
        return out_BCHW


class Eager(Layout):
    """All blocks here, one step after the other."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def run(self, course: Course) -> Totals:
        """As `Layout.run`."""
        meter = Meter(course.before)
        for step in course.steps:
            self._worker.take(self._worker.item(step, self._worker.steps.batch(step)), meter)
            course.advance(step)
            if course.is_stopped():
                break
        return meter.read()
