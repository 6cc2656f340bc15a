"""What a setting allows, in words: for the help and for the one line that refuses a value."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from cli.settings import Item
from schemas import settings_of
from utils import did_you_mean

_LIMITS = {"ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}"}
_SHORT = reprlib.Repr()  # a few lines of YAML can stand for a value of gigabytes
_SHORT.maxstring = _SHORT.maxother = 100


def choices(field: FieldInfo) -> tuple[str, ...]:
    """The words that a setting, or each entry of a list, allows; empty where it is not a choice."""
    annotation = get_args(field.annotation)[0] if is_list(field) else field.annotation
    return tuple(get_args(annotation)) if get_origin(annotation) is Literal else ()


def is_boolean(field: FieldInfo) -> bool:
    """Whether a setting is on or off."""
    return field.annotation is bool or bool in get_args(field.annotation)


def is_list(field: FieldInfo) -> bool:
    """Whether a setting takes several values."""
    return get_origin(field.annotation) is tuple


def range_text(field: FieldInfo) -> str:
    """The limits of a number: ``at least 0, below 1``; empty where there are none."""
    limits = [(key, getattr(item, key)) for item in field.metadata for key in _LIMITS if hasattr(item, key)]
    return ", ".join(_LIMITS[key].format(f"{limit:g}" if limit < 1e6 else limit) for key, limit in limits)


def allowed(field: FieldInfo) -> str:
    """Everything that a setting takes, in words."""
    if words := choices(field):
        return ("some of " if is_list(field) else "one of ") + ", ".join(words)
    if is_boolean(field):
        return "true or false"
    if is_list(field):
        whole = int in get_args(field.annotation)
        return "ascending whole numbers, as 2,5,8" if whole else "ascending fractions between 0 and 1, as 0.5,0.75"
    kinds = {field.annotation, *get_args(field.annotation)}
    kind = "a whole number" if int in kinds else "a number" if float in kinds else field.description or "text"
    return ", ".join(part for part in (kind, range_text(field)) if part)


def explain(error: ValidationError, given: Mapping[str, Item]) -> str:
    """Format the first validation error as one line with its source, the value and what is allowed."""
    first = error.errors()[0]
    names = [part for part in first["loc"] if isinstance(part, str)]
    fields = settings_of(str(given["method"].value))
    name = next((part for part in reversed(names) if part in fields), None)
    message = first["msg"].removeprefix("Value error, ")
    if name is None or name not in given:
        return message
    item = given[name]
    given_as = f"{item.source} {_SHORT.repr(item.value)}"
    if first["type"] == "value_error" and "boolean" not in message:
        return message if message.startswith("--") else f"{given_as}: {message}"
    if first["type"] == "string_too_long":
        return f"{given_as}: it has {len(item.value)} letters; allowed are at most {first['ctx']['max_length']}"
    return f"{given_as}: allowed is {allowed(fields[name])}{_nearest(item.value, fields[name])}"


def _nearest(value: Any, field: FieldInfo) -> str:
    return did_you_mean(str(value), choices(field))
