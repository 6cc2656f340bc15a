"""The fast path on a GPU: the whole training step is one CUDA graph, and the host only asks for the next replay.

It gives the bits of the module's own loop, which is its reference and takes over where a step cannot be captured.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from engine.loop.meter import Totals
from engine.loop.optimizer import set_rate
from engine.loop.program import StaticStep
from engine.loop.recorders import CudaGraphs, Recorder
from methods._base import Method
from schemas import Args
from utils import UsageError


class Uncapturable(Exception):
    """A step cannot be one CUDA graph; the message says why, and everything is as before."""


def obstacle(args: Args, device: torch.device) -> str:
    """Why these settings leave no choice but the eager path, or an empty string."""
    if device.type != "cuda":
        return "CUDA graphs need a GPU"
    if args.run.layer_parallel not in ("off", "streams"):
        return f"--layer_parallel {args.run.layer_parallel} has steps of its own"
    return "the host draws the masks of --dropout_prob" if args.model.dropout_prob > 0 else ""


def choose_recorder(args: Args, device: torch.device) -> tuple[Recorder | None, str]:
    """What ``--cuda_graph`` asks for: a recorder to try, or None and why.

    Raises:
        UsageError: it must be a graph, and cannot.
    """
    reason = "--cuda_graph off" if args.run.cuda_graph == "off" else obstacle(args, device)
    if reason and args.run.layer_parallel == "streams":
        raise UsageError(f"--layer_parallel streams runs CUDA graphs side by side: {reason}; give --layer_parallel off")
    if reason and args.run.cuda_graph == "on":
        raise UsageError(f"--cuda_graph on: {reason}; give --cuda_graph off or auto")
    return (None, reason) if reason else (CudaGraphs(device), "")


class StepGraph:
    """A training step that was recorded once, and is replayed.

    Attributes:
        replay: takes the step that the program's tensors are at.

    The optimiser's state must not be loaded again afterwards: the recording writes to the tensors that it has seen.

    Args:
        program: the step; its method keeps no state on the host from one step to the next.
        recorder: what records.
        step: the run's step, with which the warm-up is made.

    Raises:
        Uncapturable: the step draws random numbers, waits for the device, or fails.
    """

    def __init__(self, program: StaticStep, recorder: Recorder, step: int) -> None:
        self._program = program

        def take_step() -> None:
            program.begin(step, Totals())
            program()

        device, optimizer = program.feed.device, program.optimizer
        with _without_trace(program.method, optimizer, device):
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

    def launch(
        self, steps: range, before: Totals, advance: Callable[[int], None], is_stopped: Callable[[], bool]
    ) -> int:
        """Take ``steps``, all of one epoch, or those up to a stop, without waiting for the device.

        Args:
            steps: their numbers in the run.
            before: totals to go on from.
            advance: called with every step when it is under way.
            is_stopped: asked after every step.

        Returns:
            How many were taken.
        """
        self._program.begin(steps[0], before)
        for step in steps:
            self.replay()
            advance(step)
            if is_stopped():
                break
        return step + 1 - steps[0]

    def run(
        self, steps: range, before: Totals, advance: Callable[[int], None], is_stopped: Callable[[], bool]
    ) -> Totals:
        """As `launch`, but wait for the device, and return the totals."""
        count = self.launch(steps, before, advance, is_stopped)
        return self._program.totals(before.num_images + count * self._program.feed.batch_size)


@contextlib.contextmanager
def _without_trace(method: Method, optimizer: torch.optim.Optimizer, device: torch.device) -> Iterator[None]:
    """Bring parameters, buffers, the optimiser's state and the generators back, each tensor in its place.

    State of the optimiser that comes to be inside is zero afterwards, from which SGD and Adam begin; there are no
    gradients then.
    """
    groups = optimizer.param_groups
    trained = [parameter for group in groups for parameter in group["params"]]
    held = [*trained, *method.parameters(), *method.buffers(), *_state(optimizer)]
    values = [(tensor, tensor.detach().clone()) for tensor in {id(tensor): tensor for tensor in held}.values()]
    known = {id(tensor) for tensor in held}
    rate = groups[0]["lr"]
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
        set_rate(optimizer, rate)
        optimizer.zero_grad(set_to_none=True)
        method.zero_grad(set_to_none=True)


def _state(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [value for entry in optimizer.state.values() for value in entry.values() if isinstance(value, Tensor)]


@contextlib.contextmanager
def _capturable(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Let Adam be captured; it refuses without this mark, which its fused form does not need and checkpoints keep."""
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
    """The state of the generators from which a step could draw."""
    states = [torch.get_rng_state()]
    return torch.cat([*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states)


def _first_cause(error: BaseException) -> str:
    """In one line what went wrong first; the end of a capture that failed raises an error of its own."""
    while isinstance(error.__context__, RuntimeError):
        error = error.__context__
    return f"{error}".partition("\n")[0].strip() or type(error).__name__
