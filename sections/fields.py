"""How a setting is declared: a pydantic field with what the command line must know of it, in a frozen section."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

TRUE_WORDS, FALSE_WORDS = ("true", "t", "1", "yes", "y", "on"), ("false", "f", "0", "no", "n", "off")  # as in pydantic


class Below(NamedTuple):
    """The numbers below a limit, for the ``needs`` of a `setting`; None is not one of them."""

    limit: float

    def __contains__(self, value: Any) -> bool:
        return value is not None and value < self.limit


class Above(NamedTuple):
    """The numbers above a limit, likewise."""

    limit: float

    def __contains__(self, value: Any) -> bool:
        return value is not None and value > self.limit


POSITIVE = Above(0)


class Other(NamedTuple):
    """Everything but one value, for the ``needs`` of a `setting`."""

    value: Any

    def __contains__(self, value: Any) -> bool:
        return bool(value != self.value)


def setting(
    default: Any,
    description: str,
    *,
    unit: str = "",
    shown: str = "",
    needs: Mapping[str, Container[Any]] | None = None,
    unless: Mapping[str, Container[Any]] | None = None,
    **limits: Any,
) -> Any:
    """A field with what ``--help`` and the validation need to know of it.

    Args:
        default: value when neither a file nor a flag gives one.
        description: one sentence without a full stop; becomes the help text.
        unit: unit of the value, shown in the help.
        shown: words for the default in the help, where its value says little.
        needs: settings and the values of theirs (a tuple, `POSITIVE`, `Above`, `Below` or `Other`) with which this one
            has an effect; given on the command line without them it is refused.
        unless: likewise, but with any of these it has an effect whatever it ``needs`` otherwise.
        limits: pydantic's ``ge``, ``gt``, ``le``, ``lt``, ``min_length``.
    """
    if isinstance(default, float):
        limits["allow_inf_nan"] = False
    extras: Any = {"unit": unit, "shown": shown, "needs": needs or {}, "unless": unless or {}}
    return Field(default, description=description, json_schema_extra=extras, **limits)


def extra(field: FieldInfo, key: str) -> Any:
    """What `setting` stored with a field under ``key`` (``"unit"``, ``"shown"``, ``"needs"`` or ``"unless"``)."""
    return field.json_schema_extra[key] if isinstance(field.json_schema_extra, dict) else None


class Section(BaseModel):
    """A group of settings; frozen, and closed to unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML's ``epochs: true`` must not become 1, nor ``wandb: off`` the boolean False."""
        kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
        if isinstance(value, bool) and bool not in kinds:
            raise ValueError("a boolean stands where another kind of value is needed (quote words like 'off' in YAML)")
        return value


def _kinds(annotation: Any) -> set[Any]:
    """The plain types inside an annotation: ``int | None`` has int and NoneType."""
    inner = get_args(annotation)
    if not inner:
        return {annotation}
    return {type(item) if not isinstance(item, type) else item for item in inner} | set().union(*map(_kinds, inner))


def list_from_text(value: Any) -> Any:
    """``a,b``, ``a b``, and ``[a, b]`` or ``(a, b)`` as a sweep's agent writes them; what is no text stays."""
    if not isinstance(value, str):
        return value
    return [word.strip("'\"") for word in value.strip("[]() ").replace(",", " ").split()]
