"""Recorded training steps: a step is captured once as a CUDA graph, and the host only launches replays.

They give the same bits as eager steps, which are the reference and the fallback where a step cannot be captured.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from engine.loop.layout import Course, Layout
from engine.loop.meter import Totals
from engine.loop.program import Program
from engine.loop.recorders import Recorder
from methods._base import Method


class Uncapturable(Exception):
    """A step cannot be captured as a CUDA graph; the message says why. Nothing has changed."""


class Recording:
    """One step of ``program``, recorded.

    Attributes:
        program: what was recorded.
        replay: takes the step at which the program's tensors stand.

    The optimiser's state must not be loaded again afterwards: a replay writes to the tensors that were recorded.

    Args:
        program: its method keeps no state on the host from one step to the next.
        recorder: CUDA graphs, or the tape.
        step: the run's step; the warm-up takes it, and is undone.

    Raises:
        Uncapturable: the step draws random numbers, waits for the device, or fails.
    """

    def __init__(self, program: Program, recorder: Recorder, step: int) -> None:
        self.program = program

        def take_step() -> None:
            program.begin(step, Totals())
            program()

        device, optimizer = program.feed.device, program.part.optimizer
        with _without_trace(program.part.method, optimizer, device):
            try:
                before = _random_state(device)
                recorder.warm_up(take_step)
                if not torch.equal(before, _random_state(device)):
                    raise Uncapturable("its method draws random numbers in a step")
                program.begin(step, Totals())
                with _capturable(optimizer):
                    self.replay = recorder.capture(program)
            except RuntimeError as error:
                raise Uncapturable(_first_cause(error)) from error


class Recorded(Layout):
    """All blocks here, each step a replay of one recording."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def launch(self, course: Course) -> int:
        """Enqueue the steps without waiting for the device; returns how many."""
        self._recording.program.begin(course.steps[0], course.before)
        for step in course.steps:
            self._recording.replay()
            course.advance(step)
            if course.is_stopped():
                break
        return step + 1 - course.steps[0]

    def run(self, course: Course) -> Totals:
        """As `Layout.run`."""
        program, count = self._recording.program, self.launch(course)
        return program.totals(course.before.num_images + count * program.feed.batch_size)


@contextlib.contextmanager
def _without_trace(method: Method, optimizer: torch.optim.Optimizer, device: torch.device) -> Iterator[None]:
    """Restore parameters, buffers, the optimiser's state and the generators, in place.

    Optimiser state that is created inside becomes zero, with which SGD and Adam begin; gradients are dropped.
    """
    groups = optimizer.param_groups
    trained = [parameter for group in groups for parameter in group["params"]]
    held = [*trained, *method.parameters(), *method.buffers(), *_state(optimizer)]
    values = [(tensor, tensor.detach().clone()) for tensor in {id(tensor): tensor for tensor in held}.values()]
    known = {id(tensor) for tensor in held}
    rates = [group["lr"] for group in groups]
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        with torch.no_grad():
            for tensor, value in values:
                tensor.copy_(value)
            for tensor in _state(optimizer):
                if id(tensor) not in known:
                    tensor.zero_()
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        method.zero_grad(set_to_none=True)


def _state(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [value for entry in optimizer.state.values() for value in entry.values() if isinstance(value, Tensor)]


@contextlib.contextmanager
def _capturable(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Set Adam's ``capturable`` flag during the capture only: its fused form needs none, and checkpoints store it."""
    marked = [group for group in optimizer.param_groups if "capturable" in group]
    before = [group["capturable"] for group in marked]
    for group in marked:
        group["capturable"] = True
    try:
        yield
    finally:
        for group, value in zip(marked, before, strict=True):
            group["capturable"] = value


def _random_state(device: torch.device) -> Tensor:
    """The state of the random generators that a step could use."""
    states = [torch.get_rng_state()]
    return torch.cat([*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states)


def _first_cause(error: BaseException) -> str:
    """The first error of a chain, in one line: ending a capture that failed raises another one."""
    while isinstance(error.__context__, RuntimeError):
        error = error.__context__
    return f"{error}".partition("\n")[0].strip() or type(error).__name__
