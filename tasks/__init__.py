"""Auxiliary tasks of local rules, one file each: what every block but the last can learn beside its rule's own loss.

The file name is the task's name: its settings stand in the file of that name in ``sections/tasks/``, the weight of its
loss is ``--NAME_loss_weight``, and its loss is logged as ``NAME_loss``. Files that start with ``_`` are families.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sections import parts

if TYPE_CHECKING:
    from tasks._base import Task


def names() -> list[str]:
    """The names of all tasks, sorted. Does not import them."""
    return parts.names("tasks")


def load(name: str) -> type[Task]:
    """Import ``tasks/<name>.py`` and return the one task it defines."""
    from tasks._base import Task

    return parts.only("tasks", name, Task)  # type: ignore[type-abstract]
