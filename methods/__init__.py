"""Training rules, one file each. The file name is the value of ``--method`` and the tag of the run.

Files that start with ``_`` are families. There is no list of methods: a file with exactly one public `Method`
subclass is one, and its settings stand in the file of that name in ``sections/rules/``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sections import parts
from sections.own import own_rule
from utils import code_file

if TYPE_CHECKING:
    from methods._base import Method


def names() -> list[str]:
    """The names of all methods, sorted. Does not import them."""
    return parts.names("methods")


def load(name: str) -> type[Method]:
    """Import ``methods/<name>.py`` and return the one method it defines; or that of a file of the user's own."""
    from methods._base import Method

    if code_file(name):
        return own_rule(name).method
    return parts.only("methods", name, Method)  # type: ignore[type-abstract]
