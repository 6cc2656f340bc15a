"""Parts that are found by the names of their files: rules, tasks, and the settings of both."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from typing import TypeVar

from utils import UserError

Kind = TypeVar("Kind")


def names(package: str) -> list[str]:
    """The files of ``package``, sorted; those that start with ``_`` are families. Does not import them."""
    path = importlib.import_module(package).__path__
    return sorted(info.name for info in pkgutil.iter_modules(path) if not info.name.startswith("_"))


def only(package: str, name: str, kind: type[Kind]) -> type[Kind]:
    """Import a file of ``package`` and return the one subclass of ``kind`` that it defines.

    Raises:
        UserError: there is no such file.
    """
    if name not in names(package):
        raise UserError(f"{package}/{name}.py is missing, but there are settings of that name")
    module = importlib.import_module(f"{package}.{name}")
    found = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, kind)]
    found = [each for each in found if each.__module__ == module.__name__]
    assert len(found) == 1, f"{package}/{name}.py must define exactly one {kind.__name__}, not {found}"
    return found[0]


def found(package: str, kind: type[Kind]) -> dict[str, type[Kind]]:
    """By file name, what each file of ``package`` defines."""
    return {name: only(package, name, kind) for name in names(package)}


def foreign_settings(rule: type, section: type) -> str | None:
    """Why a rule does not read the settings that stand in its own ``section``, as in a copied file; else None."""
    declared = vars(rule).get("__annotations__", {}).get("args", "")
    module = vars(sys.modules[rule.__module__])
    kind = module.get(declared) if isinstance(declared, str) else declared
    if not isinstance(kind, type) or issubclass(section, kind):
        return None
    return f"{rule.__name__} reads the settings of another rule (args: {kind.__name__}); its own are {section.__name__}"
