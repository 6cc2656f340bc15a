"""A stand-in for CUDA graphs on a CPU, for tests: a step's operations are recorded once, and replayed without its code.

As in a CUDA graph, whatever a step reads from the host keeps the value that it had during the recording, so that the
tests find such reads as different results.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from engine.loop.capturable import OnlyCapturable
from engine.loop.recorders import NUM_WARM_UP, Step


class Call(NamedTuple):
    """One operation with its arguments, and the tensors that receive its results (None: it works in place)."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    targets: list[Tensor | None]


class Tape:
    """A `Recorder` for the CPU; all intermediate tensors of a step stay in memory."""

    def warm_up(self, begin: Step, step: Step) -> None:
        """As `Recorder.warm_up`; the last call is asked whether a graph could hold it."""
        for place in range(NUM_WARM_UP):
            begin()
            is_last = place == NUM_WARM_UP - 1
            with OnlyCapturable(torch.device("cpu")) if is_last else contextlib.nullcontext():
                step()

    def capture(self, step: Step, generators: Sequence[torch.Generator] = ()) -> Step:
        """Call ``step`` once more and return a function that repeats its operations."""
        with _Writer() as writer:
            step()
        return lambda: _repeat(writer.calls)


class _Writer(TorchDispatchMode):
    """Records every operation, including those of the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute, and record the tensors without their autograd graphs."""
        out = func(*args, **(kwargs or {}))
        given_args, given_kwargs = tree_map_only(Tensor, Tensor.detach, (args, kwargs or {}))
        known = {_storage(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        targets = [None if _storage(result) in known else result.detach() for result in results]
        self.calls.append(Call(func, given_args, given_kwargs, targets))
        return out


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


@torch.no_grad()
def _repeat(calls: list[Call]) -> None:
    for function, args, kwargs, targets in calls:
        out = function(*args, **kwargs)
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        for target, result in zip(targets, results, strict=True):
            if target is not None:
                target.copy_(result)
