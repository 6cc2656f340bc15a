"""Compare a layout's training steps with eager ones, before a run relies on them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from consts import ACCURACY
from engine.loop.layout import Course, Layout
from engine.loop.meter import Totals
from engine.loop.part import Part
from engine.loop.recorded import training_state, without_trace

NOISE = 10.0  # how many times as far from the eager steps as these are from each other
LEAST = 1e-3  # and at least this part of what the steps change
_Taken = tuple[list[Tensor], Totals]


def difference(
    layout: Layout,
    eager: Layout,
    part: Part,
    steps: Sequence[int],
    *,
    exact: bool,
    rounds: int = 1,
) -> str:
    """What differs after ``steps`` from one saved state, or an empty string. Leaves no trace.

    Compared are parameters, buffers, optimiser state and sums of metrics.

    Args:
        layout: what is checked.
        eager: the reference.
        part: what both of them train.
        steps: their numbers in the run, all of one epoch.
        exact: whether every bit must be equal. Otherwise two runs of ``eager`` show how far steps differ from
            themselves, and the norm of the difference may be `NOISE` times as large, or `LEAST` times that of the
            steps' change.
        rounds: how often ``layout`` takes the steps; more find a race that one may hide.

    Raises:
        RuntimeError: a step fails.
    """
    before = [tensor.detach().to("cpu", copy=True) for tensor in training_state(part.method, part.optimizer)]
    expected = _take(eager, part, steps)
    allowed = 0.0
    if not exact:
        again = _take(eager, part, steps)
        allowed = max(NOISE * _distance(again, expected), LEAST * _distance((before, expected[1]), expected))
    for _ in range(rounds):
        taken = _take(layout, part, steps)
        if exact and not _equal(taken, expected):
            return f"{_count(taken, expected)} of {len(before)} tensors differ from those of eager steps"
        if not exact and not (found := _distance(taken, expected)) <= allowed:  # also of NaN
            return f"they differ from eager steps by {found:.3g} in norm, allowed is {allowed:.3g}"
    return ""


def _take(layout: Layout, part: Part, steps: Sequence[int]) -> _Taken:
    """Take the steps; their state, on the host, and their sums."""
    method, optimizer = part.method, part.optimizer
    with without_trace(method, optimizer, next(method.parameters()).device):
        totals = layout.run(Course(steps))
        return [tensor.detach().to("cpu", copy=True) for tensor in training_state(method, optimizer)], totals


def _equal(one: _Taken, other: _Taken) -> bool:
    return one[1] == other[1] and _count(one, other) == 0


def _count(one: _Taken, other: _Taken) -> int:
    return sum(not torch.equal(*pair) for pair in zip(one[0], other[0], strict=True))


def _distance(one: _Taken, other: _Taken) -> float:
    """The norm of the difference of all floating-point tensors, and of the losses per image.

    Not of the accuracies, which a tie between two classes changes by a whole image.
    """
    pairs = [(a, b) for a, b in zip(one[0], other[0], strict=True) if a.is_floating_point()]
    squares = [(a.double() - b.double()).square().sum().item() for a, b in pairs]
    names = [name for name in other[1].sums if not name.endswith(ACCURACY)]
    losses = [(one[1].sums[name] - other[1].sums[name]) / other[1].num_images for name in names]
    return math.sqrt(sum(squares) + sum(value**2 for value in losses))
