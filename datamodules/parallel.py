"""What reading a large data set needs: work shared by threads, and files that one process writes at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from datamodules.base import Announce

_CHUNK = 128  # images a thread treats in a row: large enough that handing out work costs nothing
_MAX_THREADS = 16  # Pillow holds the interpreter's lock much of the time: more threads would only wait for it

Result = TypeVar("Result")


def by_chunks(function: Callable[[range], Result], count: int, title: str, *, progress: bool) -> Iterator[Result]:
    """What ``function`` gives for ranges of the images 0 to ``count`` - 1, in order; threads call it.

    An error ends the work, and it is always that of the first range that has one. So does closing the iterator.

    Args:
        function: gets neighbouring images.
        count: how many there are.
        title: stands before the progress bar.
        progress: draw a bar, where stderr is a terminal.
    """
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    hidden = not (progress and sys.stderr.isatty())
    with (
        ThreadPoolExecutor(min(os.cpu_count() or 1, _MAX_THREADS)) as pool,
        tqdm(total=count, desc=title, unit="img", disable=hidden, leave=False) as bar,
    ):
        results = pool.map(function, chunks)
        try:
            for chunk, result in zip(chunks, results, strict=True):
                bar.update(len(chunk))
                yield result
        finally:
            results.close()  # type: ignore[attr-defined]  # a generator; it cancels what has not begun


@contextlib.contextmanager
def held(path: Path, announce: Announce, doing: str) -> Iterator[bool]:
    """Hold the lock file ``path``; the system releases it however the process ends.

    Args:
        path: made where it does not exist, with its folder.
        announce: shows the user one line where another process has it.
        doing: what that process does, as ``"downloads to data"``.

    Yields:
        Whether it is held: there are file systems without locks.

    Raises:
        OSError: the file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        is_held = True
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            announce(f"Waiting for another process that {doing}")
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError:
            is_held = False
        yield is_held
