"""An append-only text file; on a full disk lines are delayed, and none is left incomplete."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


class Lines:
    """Appends whole lines; what cannot be written is kept in memory and retried with the next line.

    Python's buffered files were tried: after a failed flush they hold an unknown part of a line, and raise again when
    they are closed.

    Args:
        path: the file; made where it does not exist.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._stream = path.open("ab", buffering=0)
        self._pending = b""

    def append(self, text: str) -> None:
        """Write everything that is still in memory, then ``text``.

        Raises:
            OSError: the disk refuses; nothing of it is in the file, and all of it is kept for the next call.
        """
        self._pending += text.encode(errors="backslashreplace")
        end, left = os.fstat(self._stream.fileno()).st_size, self._pending
        try:
            while left:  # a disk that is almost full may write a part
                left = left[self._stream.write(left) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(self._stream.fileno(), end)
            raise
        self._pending = b""

    def close(self) -> None:
        """Close the file after a last try.

        Raises:
            OSError: the disk still refuses, and what waited is lost.
        """
        with self._stream:
            self.append("")
