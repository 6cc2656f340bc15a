"""Ctrl-C and SIGTERM: finish the step, save, leave with the right exit code. A second Ctrl-C kills."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from utils import EXIT_SIGINT, EXIT_SIGTERM

EXIT_CODES: dict[int, int] = {signal.SIGINT: EXIT_SIGINT, signal.SIGTERM: EXIT_SIGTERM}


@contextlib.contextmanager
def signals_end_it(last_words: str) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM raise a KeyboardInterrupt with their exit code, while there is nothing to save yet.

    Libraries let a KeyboardInterrupt through; an exception of our own would end in one of their ``except Exception``.
    Extensions in C do not: torch drops whatever is raised while it imports NumPy, and the half-imported NumPy fails
    later. So a signal during an import writes ``last_words``, if there are any, and ends the process at once.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if _is_importing(frame):
            os.write(2, f"{last_words}\n".encode() if last_words else b"")
            os._exit(EXIT_CODES[number])
        raise KeyboardInterrupt(EXIT_CODES[number])

    before = {number: signal.signal(number, stop) for number in EXIT_CODES}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


class StopRequest:
    """Context in which the first signal is only noted; the training loop checks `exit_code` between two steps.

    Lightning installs a handler of its own for SIGTERM that makes a run exit with 0; `install` is called again after
    it.
    """

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.getsignal(number) for number in EXIT_CODES}
        self.install()
        return self

    def install(self) -> None:
        """Install the handlers of the two signals."""
        for number in EXIT_CODES:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.exit_code = EXIT_CODES[number]
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
