"""Leaf helpers that two or more rooms use. Imports no module of the project."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import resource
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

EXIT_FAILURE, EXIT_USAGE, EXIT_SIGINT, EXIT_SIGTERM = 1, 2, 130, 143


class UserError(Exception):
    """A failure that the user can act on: one line, never a traceback. Ends the program with exit code 1."""

    exit_code = EXIT_FAILURE
    is_told = False  # whether the user has read it already


class UsageError(UserError):
    """The command itself is wrong: exit code 2, and nothing was written."""

    exit_code = EXIT_USAGE


class Interrupted(Exception):
    """The run was asked to end, and its last checkpoint is written.

    Attributes:
        exit_code: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``" (did you mean X?)"`` for the known word nearest to ``word``, or an empty string where none is near."""
    by_lower_case = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), list(by_lower_case), n=1, cutoff=0.6)
    return f" (did you mean {by_lower_case[near[0]]}?)" if near else ""


def printable(text: object) -> str:
    """``text`` as one line: a newline or an escape sequence in a name or a file must not reach the terminal as such."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(text))


_CODE = re.compile(r"(.+\.py)(:\w+)?", re.DOTALL)


def code_file(value: object) -> Path | None:
    """The Python file that the value of a setting names, as ``a/rule.py`` or ``a/net.py:build``; else None."""
    match = _CODE.fullmatch(value) if isinstance(value, str) else None
    return Path(match[1]) if match else None


def with_file(value: str, path: Path) -> str:
    """The same with another file; a value that names none as it is."""
    match = _CODE.fullmatch(value)
    return f"{path}{match[2] or ''}" if match else value


def short_name(value: str) -> str:
    """The short form of a setting's value for logs and tables: of a Python file ``rule`` or ``net:build``."""
    match = _CODE.fullmatch(value)
    return Path(match[1]).stem + (match[2] or "") if match else value


def duration(seconds: float) -> str:
    """Seconds as ``h:mm:ss``."""
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{s:02d}"


def human_bytes(count: float) -> str:
    """A number of bytes with a binary unit: ``1.4 GiB``."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def free_memory_bytes() -> int:
    """Free memory of the machine, and within the limit (``ulimit -v``) of this process.

    Where the system does not say it, as on macOS, all memory there is counts as free.
    """
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") * resource.getpagesize()
    free = int(fields["MemAvailable"].split()[0]) * 1024
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        free = min(free, max(limit - used, 0))
    return free


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open ``path`` for writing so that a reader sees the old content or the new, never half of it.

    The temporary file stands in the same folder (a rename across file systems copies, and a copy can be cut short), is
    flushed to the disk before it takes the name, and is removed if anything fails.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Bring the names in ``folder`` to the disk: without it a power cut can undo a rename, however whole the file."""
    with contextlib.suppress(OSError):  # a file system that cannot
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, as UTF-8."""
    with atomic_write(path) as stream:
        stream.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` to ``path`` atomically, as indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
