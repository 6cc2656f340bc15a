"""What takes turns: work on a device, and objects in processes of their own, which share no set-up."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch

Work = Callable[[], object]
Value = TypeVar("Value")
_CONTEXT = multiprocessing.get_context("spawn")  # as a user's command starts
_served: Any = None  # in the child: the object


def _make(make: Callable[..., Any], args: tuple[Any, ...]) -> None:
    global _served
    from loguru import logger

    logger.remove()  # the tables are the only thing to read
    _served = make(*args)


def _call(method: str, args: tuple[Any, ...]) -> Any:
    return getattr(_served, method)(*args)


class Worker:
    """A process with the object that ``make(*args)`` returns there; it starts at once, the first answer waits for it.

    Args:
        make: what makes the object; it and the arguments must be picklable.
        args: its arguments.
        environment: variables that the process has beside those of this one.
    """

    def __init__(self, make: Callable[..., Any], *args: Any, environment: Mapping[str, str] | None = None) -> None:
        self._pool = ProcessPoolExecutor(1, _CONTEXT, _make, (make, args))
        before = dict(os.environ)
        os.environ.update(environment or {})
        self._pool.submit(int)  # starts the process
        os.environ.clear()
        os.environ.update(before)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(BrokenProcessPool):
            self._pool.submit(_make, list, ()).result()  # a DataLoader's own processes would outlive the object
        self._pool.shutdown()

    def start(self, method: str, *args: Any) -> Future[Any]:
        """Let the object's method of this name run; its result comes later."""
        return self._pool.submit(_call, method, args)

    def ask(self, method: str, *args: Any) -> Any:
        """The same, and wait for the result.

        Raises:
            Exception: what the method raised, or BrokenProcessPool where the process ended.
        """
        return self.start(method, *args).result()


def seconds(work: Work, device: torch.device) -> float:
    """How long ``work`` takes, until the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def in_turns(
    measures: Mapping[str, Callable[[], Value]], rounds: Iterable[object], warm_up: bool = True
) -> dict[str, list[Value]]:
    """What every measure gave in each of ``rounds``, all of them taking turns; one round before warms up."""
    if warm_up:
        for measure in measures.values():
            measure()
    found: dict[str, list[Value]] = {name: [] for name in measures}
    for _ in rounds:
        for name, measure in measures.items():
            found[name].append(measure())
    return found
