"""Training steps in which a batch is computed in parts, one after the other (``--accumulate``).

The parts are those of replicas (``--num_replicas``): the same images, dropout and draws for each.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.loop.layout import Course, Layout
from engine.loop.meter import Meter, Totals
from engine.loop.part import Part
from engine.loop.steps import Steps


class Accumulated(Layout):
    """Gradient accumulation: a step takes the mean gradient of the equal parts of its batch.

    Args:
        part: what is trained.
        steps: of the run, once for each part of a batch, with the seeds of that replica.
    """

    def __init__(self, part: Part, steps: Sequence[Steps]) -> None:
        self._part, self._steps = part, steps

    def run(self, course: Course) -> Totals:
        """As `Layout.run`."""
        meter = Meter(course.before)
        for step in course.steps:
            for place, steps in enumerate(self._steps):
                batch, h_BCHW = self._part.inputs(steps.batch(step).shared(place, len(self._steps)))
                steps.seed_blocks(self._part.blocks, step)
                meter.add(self._part.compute(batch, h_BCHW)[1], batch.y_B)
            self._average()
            self._part.step(self._steps[0].rate(step))
            course.advance(step)
            if course.is_stopped():
                break
        return meter.read()

    def _average(self) -> None:
        """Divide the sums of gradients, group by group."""
        for group in self._part.optimizer.param_groups:
            gradients = [parameter.grad for parameter in group["params"] if parameter.grad is not None]
            if gradients:
                torch._foreach_div_(gradients, len(self._steps))
