"""Auxiliary tasks of local rules, one file each: what every block but the last can learn beside its rule's own loss.

The file name is the task's name: its settings stand in the file of that name in ``sections/tasks/``, the weight of its
loss is ``--NAME_loss_weight``, and its loss is logged as ``NAME_loss``. Files that start with ``_`` are families.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks._base import Task


def names() -> list[str]:
    """The names of all tasks, sorted. Does not import them."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def load(name: str) -> type[Task]:
    """Import ``tasks/<name>.py`` and return the one task it defines."""
    from tasks._base import Task

    module = importlib.import_module(f"tasks.{name}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Task) and value.__module__ == module.__name__
    ]
    assert len(found) == 1, f"tasks/{name}.py must define exactly one Task, not {found}"
    return found[0]
