"""How a setting is declared: a pydantic field with what the command line must know of it, in a frozen section."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from copy import copy
from typing import Any, ClassVar, NamedTuple, Self, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo

NO_NUL = r"^[^\x00]+$"  # no system takes such a path, and Python has another error for it than for all others
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


class Truthy:
    """Everything but false, zero, none and what is empty."""

    def __contains__(self, value: Any) -> bool:
        return bool(value)


POSITIVE, TRUTHY = Above(0), Truthy()


class Other(NamedTuple):
    """Everything but one value, for the ``needs`` of a `setting`."""

    value: Any

    def __contains__(self, value: Any) -> bool:
        return bool(value != self.value)


class Holding(NamedTuple):
    """The lists that have an entry."""

    entry: Any

    def __contains__(self, value: Any) -> bool:
        return self.entry in value


Values = Container[Any]  # a tuple, `POSITIVE`, `Above`, `Below`, `Other`, `Holding`
Because = tuple[Values, str]  # values of another setting, and why these; the reason may be empty


def setting(
    default: Any,
    description: str,
    *,
    unit: str = "",
    shown: str = "",
    form: str = "",
    needs: Mapping[str, Values] | None = None,
    unless: Mapping[str, Values] | None = None,
    on: Values | None = None,
    excludes: Mapping[str, Because] | None = None,
    requires: Mapping[str, Because] | None = None,
    measures: bool = False,
    **limits: Any,
) -> Any:
    """A field with what ``--help`` and the validation need to know of it; `sections.combine` reads the relations.

    Args:
        default: value when neither a file nor a flag gives one.
        description: one sentence without a full stop; becomes the help text.
        unit: unit of the value, shown in the help.
        shown: words for the default in the help, where its value says little.
        form: what texts it also allows, where it is a choice that is open to others.
        needs: settings and the values of theirs with which this one has an effect; given on the command line without
            them it is refused.
        unless: likewise, but with any of these it has an effect whatever it ``needs`` otherwise.
        on: the values of this one for which the next two hold; by default all that are not false, zero or empty.
        excludes: settings and the values of theirs with which it cannot be combined, wherever both were given.
        requires: settings and the values of theirs without which it cannot be used.
        measures: it changes what is measured, and not what is learned.
        limits: pydantic's ``ge``, ``gt``, ``le``, ``lt``, ``min_length``.
    """
    made = {key: value for key, value in locals().items() if key not in ("default", "limits")} | limits
    if isinstance(default, float):
        limits["allow_inf_nan"] = False
    extras: Any = {
        "unit": unit, "shown": shown, "form": form, "needs": needs or {}, "unless": unless or {},
        "on": TRUTHY if on is None else on, "excludes": excludes or {}, "requires": requires or {},
        "measures": measures, "made": made,
    }  # fmt: skip
    return Field(default, description=description, json_schema_extra=extras, **limits)


def again(section: type[BaseModel], name: str, default: Any, **changes: Any) -> Any:
    """The setting ``name`` of ``section`` with another default, and further ``changes``: see `setting`."""
    return setting(default, **extra(section.model_fields[name], "made") | changes)


def with_default(field: FieldInfo, default: Any, shown: str = "") -> FieldInfo:
    """The same setting with another default, and words for it in the help."""
    changed = copy(field)
    changed.default = default
    changed.json_schema_extra = {**(field.json_schema_extra or {}), "shown": shown}  # type: ignore[dict-item]
    return changed


def extra(field: FieldInfo, key: str) -> Any:
    """What `setting` stored with a field under ``key``: ``"unit"``, ``"needs"`` and so on."""
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


Kind = TypeVar("Kind", bound=Section)


class Composite(Section):
    """A section that lists option groups beside settings of its own.

    On the command line and in files the groups' settings stand beside its own. Where it declares one of theirs anew
    (`again`), its declaration counts, and the group gets the value.

    Attributes:
        GROUPS: the groups that it takes.
        groups: their values, in the same order.
    """

    GROUPS: ClassVar[tuple[type[Section], ...]] = ()
    groups: tuple[SerializeAsAny[Section], ...] = ()

    @classmethod
    def build(cls, values: Mapping[str, Any]) -> Self:
        """Validate settings by name, those of the groups among them.

        Raises:
            pydantic.ValidationError: a value is impossible.
        """
        own = own_fields(cls)
        return cls(**{name: value for name, value in values.items() if name in own}, groups=cls._groups(values))

    @classmethod
    def _groups(cls, values: Mapping[str, Any]) -> tuple[Section, ...]:
        theirs = {name for kind in cls.GROUPS for name in fields_of(kind)}
        defaults = {name: field.default for name, field in own_fields(cls).items() if name in theirs}
        return tuple(build(kind, defaults | dict(values)) for kind in cls.GROUPS)

    @model_validator(mode="before")
    @classmethod
    def _default_groups(cls, values: dict[str, Any]) -> dict[str, Any]:
        return values if "groups" in values else values | {"groups": cls._groups(values)}

    @model_serializer(mode="plain")
    def _dissolved(self) -> dict[str, Any]:
        """All settings by name, without the groups as a level of their own."""
        own = {name: getattr(self, name) for name in own_fields(type(self))}
        return own | {name: value for group in self.groups for name, value in group if name not in own}

    def group(self, kind: type[Kind]) -> Kind:
        """The values of a group; its defaults, if this section does not take it."""
        return next(self._found(kind), None) or kind()

    def _found(self, kind: type[Kind]) -> Iterator[Kind]:
        for group in self.groups:
            if isinstance(group, kind):
                yield group
            elif isinstance(group, Composite):
                yield from group._found(kind)

    def __iter__(self) -> Iterator[tuple[str, Any]]:  # type: ignore[override]
        """Names and values, those of the groups behind its own."""
        yield from self._dissolved().items()


def build(section: type[Section], values: Mapping[str, Any]) -> Section:
    """Validate ``section`` from those of ``values`` that it has."""
    given = {name: values[name] for name in fields_of(section) if name in values}
    return section.build(given) if issubclass(section, Composite) else section(**given)


def own_fields(section: type[Section]) -> dict[str, FieldInfo]:
    """The settings of a section by name, without those of its groups."""
    return {name: field for name, field in section.model_fields.items() if name != "groups"}


def fields_of(section: type[Section]) -> dict[str, FieldInfo]:
    """The settings of a section by name, those of its groups included."""
    groups = section.GROUPS if issubclass(section, Composite) else ()
    own = own_fields(section)
    return own | {n: field for group in groups for n, field in fields_of(group).items() if n not in own}


def _kinds(annotation: Any) -> set[Any]:
    """The plain types inside an annotation: ``int | None`` has int and NoneType."""
    inner = get_args(annotation)
    if not inner:
        return {annotation}
    return {type(item) if not isinstance(item, type) else item for item in inner} | set().union(*map(_kinds, inner))


def list_from_text(value: Any) -> Any:
    """``a,b``, ``a b``, and ``[a, b]`` or ``(a, b)`` as a sweep's agent writes them; other types unchanged."""
    if not isinstance(value, str):
        return value
    return [word.strip("'\"") for word in value.strip("[]() ").replace(",", " ").split()]
