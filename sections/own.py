"""What a file of the user's own holds: a training rule beside its settings, or a function that makes a network."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from sections import parts
from sections.fields import build, extra, fields_of
from sections.files import loaded, own_code
from sections.model import Code
from sections.rule import MethodArgs
from utils import UsageError, code_file, did_you_mean

RULE = ("methods._base", "Method")  # by name, since it needs torch and stands in a room above
RULE_BASES = "Method of methods/_base.py, or of a family as LocalMethod of methods/_local.py"


class OwnRule(NamedTuple):
    """A rule, and its settings."""

    method: type[Any]
    section: type[MethodArgs]


@cache
def own_rule(path: str) -> OwnRule:
    """What a file defines that was run (`sections.files.load_file`).

    Raises:
        UsageError: it is not one rule with one section of settings, or they cannot be used; one line that says why.
        KeyError: it was not run.
    """
    what, file = f"--method {path}", Path(path)
    if code_file(path) != file:
        raise UsageError(f"{what}: a file holds one rule; give its path without what stands behind the colon")
    module, stem = loaded(file), file.stem
    if stem in parts.names("methods"):
        raise UsageError(f"{what}: {stem} is a rule of the project, and a rule is called as its file; rename the file")
    if not (stem.isascii() and stem.isidentifier()):
        raise UsageError(f"{what}: a rule is called as its file; allowed are letters, digits and underscores")
    method = _only(what, module, f"rule, a subclass of {RULE_BASES}", _is_rule)
    section = _only(what, module, f"section of settings, a subclass of {_section_bases(module)}", _is_section)
    if lacking := sorted(method.__abstractmethods__) + ([] if hasattr(method, "TRAITS") else ["TRAITS"]):
        raise UsageError(f"{what}: {method.__name__} does not define {', '.join(lacking)}")
    if foreign := parts.foreign_settings(method, section):
        raise UsageError(f"{what}: {foreign}")
    with own_code(file, what):
        build(section, {})
        for name, field in fields_of(section).items():
            if extra(field, "made") is None:
                raise UsageError(f"{what}: {name} is not declared with setting(), of sections/fields.py")
    return OwnRule(method, section)


def own_function(code: Code) -> Callable[..., Any]:
    """The function that makes a network, in a file that was run.

    Raises:
        UsageError: the file has no such function.
        KeyError: it was not run.
    """
    defined = vars(loaded(code.path))
    function = defined.get(code.function)
    if not callable(function):
        known = [name for name, value in defined.items() if callable(value) and not name.startswith("_")]
        hint = did_you_mean(code.function, known) or f"; it defines {', '.join(known) or 'none'}"
        raise UsageError(f"--model {code.path}:{code.function}: the file has no function {code.function}{hint}")
    return function


def _only(what: str, module: ModuleType, kind: str, is_one: Callable[[type], bool]) -> Any:
    """The one public class of a file that is of a kind."""
    own = [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__]
    found = list(dict.fromkeys(each for each in own if is_one(each) and not each.__name__.startswith("_")))
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(f"{what}: it defines no {kind}")
    names = ", ".join(each.__name__ for each in found)
    raise UsageError(f"{what}: it must define one {kind}, not {names} (a name that begins with _ does not count)")


def _is_rule(kind: type) -> bool:
    return any((base.__module__, base.__name__) == RULE for base in kind.__mro__)


def _is_section(kind: type) -> bool:
    return issubclass(kind, MethodArgs)


def _section_bases(module: ModuleType) -> str:
    """What its section may derive from; a file that was copied still imports the settings of another rule."""
    others = [name for name, each in vars(module).items() if isinstance(each, type) and _is_section(each)]
    return " or ".join(dict.fromkeys(["MethodArgs of sections/rule.py", *(n for n in others if n != "MethodArgs")]))
