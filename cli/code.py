"""Code of the user's own, which ``--method`` and ``--model`` take by the path of a file: what of it may be run.

A file can do whatever the user can, so it is run only because the user named it: on the command line, or in a settings
file or a sweep that stands there. Its SHA-256 is then remembered for this user. A run folder keeps a copy of the code
that it was trained with, and ``evaluate``, ``--resume`` and others run that copy if its bytes were named on this
machine before, or are named beside the run. So nobody's run folder runs anything by itself, and one's own runs need no
flag.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from consts import CODE_DIR, CODE_SETTINGS, PROJECT, digest_name
from sections.files import load_file, read_file, sha256, source_of
from utils import UsageError, code_file, short_name, with_file


def named(value: str, what: str) -> str:
    """Run the file that a value names, unless this process has, and allow its content in run folders from now on.

    Args:
        value: as the user wrote it; one that names no file is returned as it is.
        what: where, as ``--method``.

    Returns:
        The value with an absolute path.

    Raises:
        UsageError: the file cannot be run.
    """
    file = code_file(value)
    if file is None:
        return value
    path = Path(os.path.abspath(file))
    load_file(path, f"{what} {value}")
    _remember(sha256(source_of(path)))
    return with_file(value, path)


def of_run(folder: Path, code: Mapping[str, Any], typed: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Run the code of a run: the copies in its folder, or files that the user named beside the run.

    Args:
        folder: of the run.
        code: what its ``config.yaml`` has of `CODE_SETTINGS` and of their digests.
        typed: the files that the user named, by setting.

    Returns:
        Settings whose values name a file, with the path of the one that was run; and a warning for every file that
        the run was started with and that is another by now.

    Raises:
        UsageError: code is missing, is not what the run was trained with, or was never named by the user.
    """
    values, warnings = {}, []
    for name in CODE_SETTINGS:
        value, digest = code.get(name), code.get(digest_name(name))
        file = code_file(value)
        if file is None and name in typed:
            raise UsageError(f"--{name} {typed[name]}: {folder} was trained with {value}; leave it out")
        if file is None:
            continue
        copy = folder.absolute() / CODE_DIR / name / file.name
        if name in typed:
            path, source = _typed(name, typed[name], str(value), digest, copy)
        else:
            path, source = copy, _copied(folder, f"--{name} {with_file(str(value), copy)}", digest, copy)
        load_file(path, str(folder), source)
        values[name] = with_file(str(value), path)
        if file.is_file() and sha256(read_file(file, str(folder))) != digest:
            warnings.append(f"{file} has changed since {folder} was started, which goes on with its own code: {path}")
    return values, warnings


def _typed(name: str, value: str, trained: str, digest: Any, copy: Path) -> tuple[Path, bytes]:
    """The file that the user named for a run that was ``trained`` with another or the same, and its content."""
    file, what = code_file(value), f"--{name} {value}"
    if file is not None and value != (wanted := with_file(trained, file)):
        raise UsageError(f"{what}: the run was trained with {short_name(trained)}; give --{name} {wanted}")
    path = Path(os.path.abspath(file or value))
    source = read_file(path, what)
    if sha256(source) != digest:
        raise UsageError(f"{what}: not the code that the run was trained with, of which {copy} is the copy")
    _remember(sha256(source))
    return path, source


def _copied(folder: Path, flag: str, digest: Any, copy: Path) -> bytes:
    """The content of the copy in a run folder, if it may be run; ``flag`` names it."""
    setting = flag.partition(" ")[0]
    source = read_file(copy, f"{folder} has lost its code; give {setting} with the file that it was trained with")
    if sha256(source) != digest:
        raise UsageError(
            f"{copy} is not the code that the run was trained with; give {setting} with the file that it was"
        )
    if digest not in _remembered():
        raise UsageError(
            f"{folder} was trained with code that nobody has named on this machine yet; read {copy}, and if it may be "
            f"run, name it once: evaluate {folder} {flag}"
        )
    return source


def changed(code: Mapping[str, Any], where: str) -> list[str]:
    """A warning for each file that a settings file names and that is another than when the settings were written."""
    files = {name: code_file(code.get(name)) for name in CODE_SETTINGS if digest_name(name) in code}
    return [
        f"{where}: {name}: {file} has changed since these settings were written, and is used as it is now"
        for name, file in files.items()
        if file is not None and file.is_file() and sha256(read_file(file, where)) != code[digest_name(name)]
    ]


def _list() -> Path:
    """The file that lists the SHA-256 of every Python file that this user has named in a command, a line each."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / PROJECT / "code_that_was_named.txt"


def _remembered() -> set[str]:
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: there is no home
        return set(_list().read_text(encoding="utf-8", errors="replace").split())
    return set()


def _remember(digest: str) -> None:
    """Add a file's SHA-256 to those that the user allows to run.

    Where the list cannot be written, the file must be named again beside every run that has it.
    """
    with contextlib.suppress(OSError, RuntimeError):
        if digest not in _remembered():
            _list().parent.mkdir(parents=True, exist_ok=True)
            with _list().open("a", encoding="utf-8") as stream:
                stream.write(f"{digest}\n")
