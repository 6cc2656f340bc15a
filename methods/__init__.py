"""Training rules, one file each. The file name is the value of ``--method`` and the tag of the run.

Files that start with ``_`` are families. There is no list of methods: a file with exactly one public `Method`
subclass is one.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from methods._base import Method


def names() -> list[str]:
    """The names of all methods, sorted. Does not import them."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def load(name: str) -> type[Method]:
    """Import ``methods/<name>.py`` and return the one method it defines."""
    from methods._base import Method

    module = importlib.import_module(f"methods.{name}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
    ]
    assert len(found) == 1, f"methods/{name}.py must define exactly one Method, not {found}"
    return found[0]
