"""Faults that a process inflicts on itself at an exact place, where timing from outside would not be repeatable."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import reports
from datamodules import cache, folder
from engine.module import TrainingModule
from engine.run import checkpoint, wandb_log


def after_step(step: int, act: Callable[[TrainingModule], Any]) -> None:
    """Call ``act`` right after the optimiser's step ``step`` (from 0), in whatever thread took it."""
    advance = TrainingModule._advance

    def advance_and_act(self: TrainingModule, index: int) -> None:
        advance(self, index)
        if index == step:
            act(self)

    TrainingModule._advance = advance_and_act  # type: ignore[method-assign]


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


def filler(folder: Path) -> Path:
    return folder / "filler"


def fill_disk(first: int, last: int | None) -> None:
    """Fill the disk of the run folder after step ``first``, and free it after step ``last``."""

    def fill(module: TrainingModule) -> None:
        with contextlib.suppress(OSError), filler(module.run_log.folder.path.parent).open("wb", buffering=0) as stream:
            while stream.write(bytes(512)):
                pass

    after_step(first, fill)
    if last is not None:
        after_step(last, lambda module: filler(module.run_log.folder.path.parent).unlink())


def limit_file_size(step: int, num_bytes: int) -> None:
    """From ``step`` on, no file can grow beyond ``num_bytes``."""
    after_step(step, lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes)))


def poison(step: int, name: str, value: float) -> None:
    """Set one number of a block's weight or statistic after a step; ``name`` is that inside ``backbone.blocks``."""
    after_step(step, lambda module: _poison(module, name, value))


def poison_and_signal(step: int, number: int) -> None:
    """A weight that is not finite, and a signal, after the same step."""
    signal_after_step(step, number)
    poison(step, "0.features.0.weight", float("nan"))


def _poison(module: TrainingModule, name: str, value: float) -> None:
    tensor = module.method.backbone.blocks.state_dict()[name]
    tensor[(0,) * tensor.dim()] = value


def short_wandb_timeouts() -> None:
    """The limits that hold up a run, shorter, so that the tests are."""
    wandb_log._INIT_TIMEOUT_S, wandb_log._FINISH_TIMEOUT_S = 3, 3


def pause_with_short_timeouts(step: int, path: str) -> None:
    """Both."""
    short_wandb_timeouts()
    pause_after_step(step, path)


_REFRESH = reports.refresh


def pictures() -> None:
    """Let the run draw, which `process.start` takes away."""
    reports.refresh = _REFRESH


def fill_cache_for_ever(path: Path) -> None:
    """Write a cache of 44 images, all pixels 7, again and again."""
    image_HWC = np.full((64, 64, 3), 7, np.uint8)
    while True:
        cache.write(path, (44, 64, 64, 3), lambda put: [put(index, image_HWC) for index in range(44)])
        (path.parent / "saved").touch()


def kill_while_decoding(count: int) -> None:
    """End this process with SIGKILL when so many images are decoded."""
    pixels, left = folder._pixels, [count]

    def decode_and_kill(*words: Any) -> np.ndarray:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return pixels(*words)

    folder._pixels = decode_and_kill
