"""Checkpoints: plain dicts and tensors, written atomically, checked on load, never executed.

Lightning's `save_checkpoint` was tried: it moves the file across file systems by copying, keeps no random state or
position in the data, and a run resumed from it had other weights.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch

from utils import UserError, atomic_write

VERSION = 1
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` to ``path``; on any failure the file that was there stays whole.

    Raises:
        UserError: the disk refuses.
    """
    try:
        with atomic_write(path) as stream:
            torch.save({"version": VERSION, **state}, stream)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise UserError(f"cannot write the checkpoint {path}: {error}".partition("\n")[0]) from error


def save_last(folder: Path, state: dict[str, Any]) -> None:
    """Write ``last.ckpt``, and keep the one before it as ``previous.ckpt``."""
    if (folder / LAST).exists():
        keep_last_as(folder, PREVIOUS)
    save(folder / LAST, state)


def keep_last_as(folder: Path, name: str) -> None:
    """Give ``last.ckpt`` a second name; later saves do not touch it, because they put a new file in its place.

    Raises:
        UserError: the disk refuses.
    """
    temporary = folder / f".{name}.{os.getpid()}.tmp"
    try:
        temporary.unlink(missing_ok=True)
        try:
            os.link(folder / LAST, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(folder / LAST, temporary)
        os.replace(temporary, folder / name)
    except OSError as error:
        raise UserError(f"cannot write the checkpoint {folder / name}: {error.strerror}") from error


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, without executing anything in it.

    Raises:
        UserError: it is missing, damaged, or of another version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise UserError(f"the checkpoint {path} is damaged (in {damaged})")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there is no checkpoint {path}") from None
    except (OSError, RuntimeError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"the checkpoint {path} is damaged: {error}".partition("\n")[0]) from None
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise UserError(f"{path} is not a checkpoint of this version")
    return state
