"""The decoded images of a tree, kept in one file beside it."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consts import PROJECT
from datamodules.base import Announce
from utils import atomic_write

Pixels = NDArray[np.uint8]

VERSION = 1  # part of the key; to be raised when the content or the decoding changes
_PREFIX = f"{PROJECT}-cache-"
_OURS = re.compile(re.escape(_PREFIX) + r"[0-9a-f]{64}\.npz")


def cache_path(root: Path, key: str) -> Path:
    """The file for the tree ``root`` in the state that ``key`` (64 hexadecimal digits) stands for."""
    return root / f"{_PREFIX}{key}.npz"


def load(path: Path, num_train: int, num_test: int) -> tuple[Pixels, Pixels] | None:
    """Training and test images (PHWC), or None where there is no whole file of these counts.

    Damaged bytes are noticed: a zip archive has a checksum for every member.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            train, test = archive["train"], archive["test"]
    except Exception:  # damage can surface as almost any error, and the images themselves are still there
        return None
    fits = train.dtype == test.dtype == np.uint8 and train.ndim == test.ndim == 4 and train.shape[1:] == test.shape[1:]
    return (train, test) if fits and (len(train), len(test)) == (num_train, num_test) else None


def save(path: Path, train: Pixels, test: Pixels, announce: Announce) -> None:
    """Write the cache and remove those of earlier states of the tree; where that is impossible, one line says so."""
    try:
        with atomic_write(path) as stream:
            np.savez(stream, train=train, test=test)
    except OSError as error:
        announce(
            f"No image cache in {path.parent} ({error.strerror or error}): the images are decoded anew in every run"
        )
        return
    for name in os.listdir(path.parent):
        if _OURS.fullmatch(name) and name != path.name:
            with contextlib.suppress(OSError):  # another process may have removed it
                (path.parent / name).unlink()
