"""Objects in processes of their own, so that no way of training inherits what another one has set up."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

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
        for name in environment or {}:
            del os.environ[name]
        os.environ.update(before)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
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
