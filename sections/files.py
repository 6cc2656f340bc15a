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


def load_file(path: Path, what: str) -> ModuleType:
    """Run a Python file and return its module, or the module that it was run as already if it has not changed.

    To call only with a path that the user typed, because a file can do whatever the user can. It stands alone: it may
    import installed packages and this project, but no files beside it, so that a copy of it is enough to run it again.
    Nothing is written, no compiled file either.

    Args:
        path: of the file.
        what: how the user named it, as ``--model net.py:build``; messages begin with it.

    Raises:
        UsageError: it cannot be read, is not Python, or raises an error.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{what}: cannot read {path}: {error.strerror or error}") from None
    digest = hashlib.sha256(bytes(path.resolve()) + b"\0" + source).hexdigest()
    name = f"own_{digest[:16]}.{path.stem}"
    if name not in sys.modules:
        module = ModuleType(name)
        module.__file__ = str(path)
        setattr(module, SOURCE, source)
        sys.modules[name] = module  # pydantic and dataclasses look up annotations there
        try:
            with own_code(path, what):
                exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


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
