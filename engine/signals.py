"""Ctrl-C and SIGTERM: finish the step, save, leave with the right exit code. A second Ctrl-C kills."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from utils import EXIT_SIGINT, EXIT_SIGTERM


@contextlib.contextmanager
def sigterm_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM raise a KeyboardInterrupt with its exit code, while there is nothing to save yet.

    Libraries let a KeyboardInterrupt through; an exception of our own would end in one of their ``except Exception``.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(EXIT_SIGTERM)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class StopRequest:
    """Context in which the first signal is only noted; whoever trains looks at `exit_code` between two steps.

    Lightning installs a handler of its own for SIGTERM that makes a run exit with 0; `install` is called again after
    it.
    """

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self.install()
        return self

    def install(self) -> None:
        """Take the two signals over."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.exit_code = EXIT_SIGINT if number == signal.SIGINT else EXIT_SIGTERM
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
