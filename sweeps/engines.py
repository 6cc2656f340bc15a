"""Engines: who starts the process of a trial, and where. `LocalEngine` starts it here."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)  # loaded here, because between fork and exec a lock may be held for ever


@dataclass(frozen=True)
class Launch:
    """A trial's process that is to be started.

    Attributes:
        words: the words behind ``python``.
        log: what it prints is added to this file.
        group: the group of its wandb run.
        device: its ``--device``.
        descriptor: an open file that it inherits, so that a lock lives as long as it does.
    """

    words: Sequence[str]
    log: Path
    group: str
    device: str
    descriptor: int | None

    def defaults(self, num_threads: int | None) -> dict[str, str]:
        """Environment variables, unless they are set."""
        threads = {} if num_threads is None else {"OMP_NUM_THREADS": str(num_threads)}
        return {"WANDB_RUN_GROUP": self.group} | threads


class Process(Protocol):
    """What a sweep needs of a trial's process; `subprocess.Popen` has it."""

    def poll(self) -> int | None:
        """The exit code, a signal's as a negative number; None while it runs."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    def kill(self) -> None:
        """Send SIGKILL."""


class Engine(Protocol):
    """Starts processes of trials inside its ``with`` block.

    Attributes:
        max_losses: how often a trial whose process was killed is gone on with, before that counts as a failure.
    """

    max_losses: int

    def start(self, launch: Launch) -> Process:
        """Start a trial."""

    def __enter__(self) -> Engine: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LocalEngine:
    """Processes of this machine.

    A killed one counts as failed: nearly always memory ran out here, and the next try would meet the same end.

    Args:
        num_workers: trials side by side, which share the cores.
    """

    max_losses = 0

    def __init__(self, num_workers: int) -> None:
        # Several trials side by side would each start a thread for every core.
        self._threads = max(1, (os.cpu_count() or 1) // num_workers) if num_workers > 1 else None

    def start(self, launch: Launch) -> Process:
        """Start a trial."""
        return start_python(launch.words, launch.log, launch.defaults(self._threads), launch.descriptor)

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def open_engine(name: str, num_workers: int) -> Engine:
    """The engine that ``--engine`` names; nothing is started yet.

    Raises:
        UsageError: it is not installed.
    """
    if name == "local":
        return LocalEngine(num_workers)
    from sweeps.ray_engine import RayEngine

    return RayEngine(num_workers)


def start_python(
    words: Sequence[str], log: Path, defaults: Mapping[str, str], descriptor: int | None = None
) -> subprocess.Popen[bytes]:
    """Start Python with ``words``; the process ends with this one.

    Args:
        words: the words behind ``python``.
        log: what it prints is added to this file.
        defaults: environment variables, unless they are set.
        descriptor: an open file that it inherits.
    """
    with log.open("ab") as stream:
        return subprocess.Popen(
            [sys.executable, *words], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
            env={**defaults, **os.environ},
            start_new_session=True,  # Ctrl-C is for the sweep, which passes it on
            pass_fds=() if descriptor is None else (descriptor,),
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )  # fmt: skip


def _end_with_parent() -> None:
    """Have the kernel send SIGTERM when the parent dies, kill -9 included, so that no trial trains on unseen."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
