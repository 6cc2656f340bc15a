"""Sections that are found by the names of their files: one for each rule, and one for each auxiliary task."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TypeVar

from sections.fields import Section

Kind = TypeVar("Kind", bound=Section)


def found(package: str, kind: type[Kind]) -> dict[str, type[Kind]]:
    """By file name in alphabetical order, the one subclass of ``kind`` that each file of ``package`` defines."""
    path = importlib.import_module(package).__path__
    names = sorted(info.name for info in pkgutil.iter_modules(path) if not info.name.startswith("_"))
    return {name: only(f"{package}.{name}", kind) for name in names}


def only(module: str, kind: type[Kind]) -> type[Kind]:
    """The one subclass of ``kind`` that ``module`` defines."""
    values = vars(importlib.import_module(module)).values()
    sections = [each for each in values if isinstance(each, type) and issubclass(each, kind)]
    sections = [each for each in sections if each.__module__ == module]
    assert len(sections) == 1, f"{module} must define exactly one {kind.__name__}, not {sections}"
    return sections[0]
