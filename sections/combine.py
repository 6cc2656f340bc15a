"""Compatibility of settings, decided here alone for flags, files and sweeps, and printed on the page of the methods.

Settings declare how they relate to others (`sections.fields.setting`): ``needs`` and ``unless`` say when one has an
effect, ``excludes`` and ``requires`` what it can be combined with. Beside settings they may name facts, which follow
from several settings. What only the data or the machine can show (sizes of maps, a GPU) is refused where it is seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo

from sections.fields import Above, Below, Holding, Other, extra

Fields = Mapping[str, FieldInfo]
Facts = Mapping[str, Any]
Words = Mapping[str, str]  # of the facts that are no settings: what must be so


def conflict(fields: Fields, facts: Facts, words: Words) -> str | None:
    """Why these settings cannot be used together, as one line; None where they can."""
    for name, field in fields.items():
        if facts[name] not in extra(field, "on") or not has_effect(name, fields, facts):
            continue
        for other, (values, why) in extra(field, "excludes").items():
            if other in fields and facts[other] in values and has_effect(other, fields, facts):
                entry = f" {values.entry}" if isinstance(values, Holding) else ""
                pair = f"--{flag(name, field, facts)} and --{flag(other, fields[other], facts)}{entry}"
                return f"{pair} exclude each other{f': {why}' if why else '; give one'}"
        for other, (values, why) in extra(field, "requires").items():
            if facts.get(other) not in values:
                needed = f"--{flag(name, field, facts)} needs {_need(other, values, words)}"
                return needed + (f": {why}" if why else "")
    return None


def has_effect(name: str, fields: Fields, facts: Facts) -> bool:
    """Whether a setting changes anything beside the others."""
    return name not in fields or _missing(name, fields, facts) is None


def idle(name: str, fields: Fields, facts: Facts, words: Words) -> str | None:
    """What a setting needs to have an effect, in words; None where it has one."""
    missing = _missing(name, fields, facts)
    return None if missing is None else _need(*missing, words)


def _missing(name: str, fields: Fields, facts: Facts) -> tuple[str, Any] | None:
    """The first setting or fact that is not as ``name`` needs it, and the values that it needs."""
    if any(facts.get(other) in values for other, values in extra(fields[name], "unless").items()):
        return None
    for other, values in extra(fields[name], "needs").items():
        if facts.get(other) not in values:
            return other, values
        if other in fields and (found := _missing(other, fields, facts)):  # what it needs must itself have an effect
            return found
    return None


def flag(name: str, field: FieldInfo, facts: Facts) -> str:
    """A setting as the user would type it, with its value where that is a word, or as `facts` spell it."""
    if name in facts["spelled"]:
        return str(facts["spelled"][name])
    value = facts[name]
    return f"{name} {value}" if isinstance(value, str) else name


def _need(name: str, wanted: Any, words: Words) -> str:
    if name in words:
        return words[name]
    if isinstance(wanted, Above):
        return f"--{name} above {wanted.limit:g}"
    if isinstance(wanted, Below):
        return f"--{name} below {wanted.limit:g}"
    if isinstance(wanted, Other):
        return f"--{name}" if wanted.value is None else f"--{name} other than {wanted.value}"
    if wanted == (None,):
        return f"no --{name}"
    return f"--{name}" if wanted == (True,) else f"--{name} {' or '.join(map(str, wanted))}"
