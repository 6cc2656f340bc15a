"""A Python file of the user's own: run it, and report in one line what is wrong with it."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from utils import UsageError, UserError

SOURCE = "__source__"  # the module's attribute with the bytes that were run, for a copy of exactly these
_RUN: dict[Path, ModuleType] = {}  # by path, what this process has run


def load_file(path: Path, what: str, source: bytes | None = None) -> ModuleType:
    """Run a Python file and return its module; once in a process, whatever becomes of the file meanwhile.

    To call only with a file that the user named (`cli.code`), because a file can do whatever the user can. It stands
    alone: it may import installed packages and this project, but no files beside it, so that a copy of it is enough to
    run it again. Nothing is written, no compiled file either.

    Args:
        path: of the file, absolute.
        what: how the user named it, as ``--model net.py:build``; messages begin with it.
        source: its content, where that was read already.

    Raises:
        UsageError: it cannot be read, is not Python, raises an error, or was run with another content than ``source``.
    """
    if path not in _RUN:
        _RUN[path] = _run(path, what, read_file(path, what) if source is None else source)
    if source not in (None, source_of(path)):
        raise UsageError(f"{what}: {path} has changed since this process has run it; start again")
    return _RUN[path]


def read_file(path: Path, what: str) -> bytes:
    """The content of a file; ``what`` begins the message.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UsageError(f"{what}: cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def loaded(path: Path) -> ModuleType:
    """The module of a file that this process has run.

    Raises:
        KeyError: it has not.
    """
    return _RUN[path]


def source_of(path: Path) -> bytes:
    """The content of the file as this process has run it, whatever became of it since; see `loaded`."""
    return bytes(getattr(_RUN[path], SOURCE))


def sha256(source: bytes) -> str:
    """The digest by which the content of a file is told from another."""
    return hashlib.sha256(source).hexdigest()


def _run(path: Path, what: str, source: bytes) -> ModuleType:
    digest = hashlib.sha256(bytes(path.resolve()) + b"\0" + source).hexdigest()
    module = ModuleType(f"own_{digest[:16]}.{path.stem}")
    module.__file__ = str(path)
    setattr(module, SOURCE, source)
    sys.modules[module.__name__] = module  # pydantic and dataclasses look up annotations there
    try:
        with own_code(path, what):
            exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


@contextlib.contextmanager
def own_code(path: Path, what: str) -> Iterator[None]:
    """Report an error of code in ``path`` in one line with its place, in place of a traceback.

    Raises:
        UsageError: in place of any exception inside the block but errors in one line and the interrupt of a signal.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit too: the file must not end the program
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) and error.filename == str(path) else None
        line = frames[-1].lineno if line is None and frames else line
        reason = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())[:300]
        place = f"line {line} of {path.name}: " if line else ""
        raise UsageError(f"{what}: {place}{type(error).__name__}{f': {reason}' if reason else ''}") from error
