"""Recorded training steps: a step is captured once as a CUDA graph, and the host only launches replays.

They give the same bits as eager steps, which are the reference and the fallback where a step cannot be captured.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from engine.devices import allocated_memory, peak_memory, reset_peak_memory
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
        step_bytes: memory on the GPU that the step needs beside what was allocated before it; 0 on a CPU.

    The optimiser's state must not be loaded again afterwards: a replay writes to the tensors that were recorded.

    Args:
        program: its method keeps no state on the host from one step to the next.
        recorder: CUDA graphs, or the tape; for this recording alone.
        step: the run's step; the warm-up takes it, and is undone.

    Raises:
        Uncapturable: the step draws from torch's own generator, does what no graph can hold, or fails.
    """

    def __init__(self, program: Program, recorder: Recorder, step: int) -> None:
        self.program = program

        def begin() -> None:
            program.begin(step, Totals())
            program.seed(step)

        device, optimizer = program.feed.device, program.part.optimizer
        with without_trace(program.part.method, optimizer, device):
            try:
                before = random_state(device)
                recorder.warm_up(begin, program)
                if not torch.equal(before, random_state(device)):
                    raise Uncapturable("its method draws from torch's own generator, and not from `Batch.generator`")
                begin()
                reset_peak_memory(device)
                held_bytes = allocated_memory(device)
                with _capturable(optimizer):
                    self._replay = recorder.capture(program, program.generators)
                self.step_bytes = peak_memory(device) - held_bytes if device.type == "cuda" else 0
            except RuntimeError as error:
                raise Uncapturable(_first_cause(error)) from error

    def replay(self, step: int) -> None:
        """Take step ``step``, at which the program's tensors must stand."""
        self.program.seed(step)
        self._replay()


class Recorded(Layout):
    """All blocks here, each step a replay of one recording."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def launch(self, course: Course) -> int:
        """Enqueue the steps without waiting for the device; returns how many."""
        self._recording.program.begin(course.steps[0], course.before)
        for step in course.steps:
            self._recording.replay(step)
            course.advance(step)
            if course.is_stopped():
                break
        return step + 1 - course.steps[0]

    @property
    def step_bytes(self) -> int:
        """As `Recording.step_bytes`."""
        return self._recording.step_bytes

    def run(self, course: Course) -> Totals:
        """As `Layout.run`."""
        program, count = self._recording.program, self.launch(course)
        return program.totals(course.before.num_images + count * program.feed.batch_size)


@contextlib.contextmanager
def without_trace(method: Method, optimizer: torch.optim.Optimizer, device: torch.device) -> Iterator[None]:
    """Restore parameters, buffers, the optimiser's state and the generators, in place, when the context ends.

    Optimiser state that is created inside becomes zero, with which SGD and Adam begin; gradients are dropped. The
    values wait on the host, so that they do not count as memory of the step.
    """
    held = training_state(method, optimizer)
    values = [(tensor, tensor.detach().to("cpu", copy=True)) for tensor in held]
    known = {id(tensor) for tensor in held}
    rates = [group["lr"] for group in optimizer.param_groups]
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # a step that failed may still be writing
        with torch.no_grad():
            for tensor, value in values:
                tensor.copy_(value)
            for tensor in _state(optimizer):
                if id(tensor) not in known:
                    tensor.zero_()
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        method.zero_grad(set_to_none=True)


def training_state(method: Method, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """All that a training step changes: parameters, buffers and the optimiser's state, each once."""
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    held = [*trained, *method.parameters(), *method.buffers(), *_state(optimizer)]
    return [*{id(tensor): tensor for tensor in held}.values()]


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


def random_state(device: torch.device) -> Tensor:
    """The state of the random generators that a step could use."""
    states = [torch.get_rng_state()]
    return torch.cat([*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states)


def _first_cause(error: BaseException) -> str:
    """The first error of a chain, in one line: ending a capture that failed raises another one."""
    while isinstance(error.__context__, RuntimeError):
        error = error.__context__
    return f"{error}".partition("\n")[0].strip() or type(error).__name__
