"""Checkpoints: plain dicts and tensors, written atomically, checked on load, never executed.

Lightning's `save_checkpoint` was tried: it moves the file across file systems by copying, keeps no random state or
position in the data, and a run resumed from it had other weights.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from methods._base import Method
from utils import UserError, atomic_write, sync_folder

VERSION = 1
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
_NEXT = ".next.tmp"  # complete, but not yet renamed to last.ckpt


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` to ``path``; on any failure the previous file stays intact.

    Raises:
        UserError: the disk refuses.
    """
    with _one_line(path), atomic_write(path) as stream:
        torch.save({"version": VERSION, **state}, stream)


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Report in one line that ``path`` cannot be written."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError without the cause
        cause = error if isinstance(error, OSError) else error.__context__
        reason = cause.strerror if isinstance(cause, OSError) else f"{error}".partition("\n")[0]
        raise UserError(f"cannot write the checkpoint {path}: {reason}") from error


def save_last(folder: Path, state: dict[str, Any], *, best: bool = False) -> None:
    """Write ``last.ckpt``, keep the one before it as ``previous.ckpt``, and give it the name ``best.ckpt`` if asked.

    The new file is whole before any name moves, so a full disk changes nothing. ``best.ckpt`` moves before
    ``last.ckpt``: a run killed between the two takes the epoch again and arrives at the same best one, while in the
    other order it would never learn that ``best.ckpt`` is behind.

    Raises:
        UserError: the disk refuses.
    """
    last, new = folder / LAST, folder / _NEXT
    with _one_line(last):
        with atomic_write(new) as stream:
            torch.save({"version": VERSION, **state}, stream)
        if last.exists():
            _name_as(last, folder / PREVIOUS)
        if best:
            _name_as(new, folder / BEST)
        os.replace(new, last)
        sync_folder(folder)


def _name_as(path: Path, name: Path) -> None:
    """Give a file a second name; later saves do not touch it, because they put a new file in its place."""
    temporary = name.with_name(f".{name.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, temporary)
    os.replace(temporary, name)


def load_newest(folder: Path, warn: Callable[[str], None]) -> dict[str, Any]:
    """The checkpoint to resume from: ``last.ckpt``, or with a warning ``previous.ckpt`` if that is damaged or missing.

    The older file then takes the place of the damaged one, because the next save would otherwise keep the damaged
    one as ``previous.ckpt`` and lose the last whole file. What killed saves have left is removed.

    Raises:
        UserError: neither can be read (the message is that of ``last.ckpt``), or nothing can be written there.
    """
    for leftover in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            leftover.unlink()
    with _one_line(folder / LAST):  # fails now, not after an epoch
        (folder / _NEXT).touch()
        (folder / _NEXT).unlink()
    try:
        return load(folder / LAST)
    except UserError as error:
        try:
            state = load(folder / PREVIOUS)
        except UserError:
            raise error from None
        warn(f"{error}; going on from {PREVIOUS}, which is from step {state.get('step')}")
    with _one_line(folder / LAST):
        _name_as(folder / PREVIOUS, folder / LAST)
    return state


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, without executing anything in it.

    Raises:
        UserError: it is missing, damaged, or of another version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        state = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there is no checkpoint {path}") from None
    except Exception as error:  # a damaged or malicious archive may raise almost anything
        reason = " ".join(f"{error}".partition("\n")[0].split()) or type(error).__name__
        raise UserError(f"the checkpoint {path} is damaged: {reason}") from None
    if damaged:
        raise UserError(f"the checkpoint {path} is damaged (in {damaged})")
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise UserError(f"{path} is not a checkpoint of this version")
    return state


def restore(method: Method, state: dict[str, Any]) -> None:
    """Load the weights and the phase of a checkpoint into ``method``.

    Raises:
        UserError: they are those of another network or method.
    """
    with fitting():
        method.load_state_dict(state["method"])
        method.enter_phase(state.get("phase", 0))


@contextlib.contextmanager
def fitting() -> Iterator[None]:
    """Report in one line that a valid checkpoint does not belong to this run, in place of torch's many errors.

    Raises:
        UserError: in place of any other exception inside the block.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{error}".split())[:200] or type(error).__name__
        raise UserError(f"the checkpoint does not belong to this run: {reason}") from error
