"""Faults that a process inflicts on itself at an exact place, where timing from outside would not be repeatable."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from engine import checkpoint, module


def after_step(step: int, act: Callable[[module.TrainingModule], Any]) -> None:
    """Call ``act`` right after the optimiser's step ``step`` (from 0)."""
    take = module.TrainingModule._take_step

    def take_and_act(self: module.TrainingModule, index: int) -> None:
        take(self, index)
        if index == step:
            act(self)

    module.TrainingModule._take_step = take_and_act  # type: ignore[method-assign]


def signal_after_step(step: int, number: int) -> None:
    """Send this process signal ``number`` right after a step."""
    after_step(step, lambda _: os.kill(os.getpid(), number))


def signal_after_save(count: int, number: int) -> None:
    """Send this process signal ``number`` as soon as its checkpoint ``count`` (from 1) is written."""
    save, left = checkpoint.save_last, [count]

    def save_and_signal(*words: Any, **settings: Any) -> None:
        save(*words, **settings)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), number)

    checkpoint.save_last = save_and_signal


def ctrl_c_to_the_group(step: int) -> None:
    """What a terminal does on Ctrl-C, right after a step."""
    after_step(step, lambda _: os.killpg(os.getpgid(0), signal.SIGINT))


def signal_inside_save(count: int, number: int) -> None:
    """Send this process signal ``number`` while checkpoint ``count`` (from 1) is half written."""
    write, left = torch.save, [count]

    def write_and_signal(state: Any, stream: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            stream.write(b"half")
            os.kill(os.getpid(), number)
            stream.seek(0)
        write(state, stream)

    torch.save = write_and_signal  # type: ignore[assignment]


def two_ctrl_c() -> None:
    """Ctrl-C in the second epoch, and again while the run is saved because of the first."""
    signal_after_step(7, signal.SIGINT)
    signal_inside_save(2, signal.SIGINT)


def pause_after_step(step: int, path: str) -> None:
    """Wait after a step until the file ``path`` is there; ``path``.waiting says that it has come so far."""

    def wait(_: object) -> None:
        Path(f"{path}.waiting").touch()
        while not Path(path).exists():
            time.sleep(0.01)

    after_step(step, wait)
