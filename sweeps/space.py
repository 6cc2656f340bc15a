"""What a parameter of a sweep may be: a value, some values, or a range; and how it is written as a flag."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Scalar = bool | int | float | str
_DISTRIBUTIONS = Literal[
    "constant", "categorical", "int_uniform", "uniform", "q_uniform", "log_uniform", "log_uniform_values"
]


class ParameterSpec(BaseModel):
    """A parameter as it stands in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: Any = None
    values: tuple[Any, ...] | None = Field(None, min_length=1)
    distribution: _DISTRIBUTIONS | None = None
    min: int | float | None = Field(None, allow_inf_nan=False)
    max: int | float | None = Field(None, allow_inf_nan=False)
    q: float | None = Field(None, gt=0)


@dataclass(frozen=True)
class Parameter:
    """A parameter, understood.

    Attributes:
        choices: the values it may take; empty for a range.
        low: lower end of a range, included.
        high: upper end, included.
        step: distance of the values of a range; None for any number.
        log: draw uniformly in the logarithm.
    """

    choices: tuple[Scalar, ...] = ()
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False

    @property
    def is_fixed(self) -> bool:
        """Whether it has one value only."""
        return len(self.choices) == 1

    @property
    def points(self) -> tuple[Scalar, ...] | None:
        """All its values in order; None where there are too many to try them all."""
        if self.choices:
            return self.choices
        whole = isinstance(self.low, int) and self.step == 1 and not self.log
        return tuple(range(int(self.low), int(self.high) + 1)) if whole else None

    @property
    def samples(self) -> tuple[Scalar, ...]:
        """The values with which it is checked: all choices, or the ends of the range."""
        return self.choices or (self.low, self.high)

    def distribution(self) -> BaseDistribution:
        """The same for Optuna."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices:
            return CategoricalDistribution(self.choices)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)


def understand(name: str, spec: ParameterSpec) -> Parameter:
    """Turn a parameter of the file into what is searched.

    Raises:
        ValueError: the keys contradict each other, or the range is empty.
    """
    given = spec.model_fields_set - {"distribution"}
    where = f"parameters.{name}"
    if given == {"value"} and spec.distribution in (None, "constant"):
        return Parameter((_scalar(where, spec.value),))
    if given == {"values"} and spec.distribution in (None, "categorical"):
        assert spec.values is not None
        choices = tuple(_scalar(where, value) for value in spec.values)
        if len(set(map(to_text, choices))) < len(choices):
            raise ValueError(f"{where}.values: a value stands there twice")
        return Parameter(choices)
    if given - {"q"} == {"min", "max"} and spec.distribution not in ("constant", "categorical"):
        return _range(where, spec)
    raise ValueError(f"{where}: give value, or values, or min and max, with a distribution that suits them")


def _scalar(where: str, value: Any) -> Scalar:
    if value is None or isinstance(value, dict):
        raise ValueError(f"{where}: {value} is not a value of a flag; leave the parameter out for its default")
    if isinstance(value, (list, tuple)):
        return str(list(value))  # as wandb's agent writes it, and Optuna takes no lists
    if isinstance(value, str):
        try:
            return float(value)  # YAML reads 1e-3 as text
        except ValueError:
            return value
    return value if isinstance(value, (bool, int)) else float(value)


def _range(where: str, spec: ParameterSpec) -> Parameter:
    low, high, kind = spec.min, spec.max, spec.distribution
    assert low is not None and high is not None
    whole = isinstance(low, int) and isinstance(high, int)
    kind = kind or ("int_uniform" if whole else "uniform")
    if low >= high:
        raise ValueError(f"{where}: the range is empty (min {low:g}, max {high:g})")
    if kind == "int_uniform":
        if not whole:
            raise ValueError(f"{where}: int_uniform needs whole numbers for min and max")
        return Parameter(low=low, high=high, step=1)
    if (spec.q is not None) != (kind == "q_uniform"):
        raise ValueError(f"{where}: q and q_uniform go together")
    if kind == "q_uniform":
        assert spec.q is not None
        first, last = math.ceil(low / spec.q - 1e-9), math.floor(high / spec.q + 1e-9)
        if first >= last:
            raise ValueError(f"{where}: there are no two multiples of q {spec.q:g} from min {low:g} to max {high:g}")
        return Parameter(low=float(first * spec.q), high=float(last * spec.q), step=spec.q)
    if kind == "log_uniform":  # wandb's bounds are then those of the logarithm
        return Parameter(low=math.exp(low), high=math.exp(high), log=True)
    if kind == "log_uniform_values" and low <= 0:
        raise ValueError(f"{where}: log_uniform_values needs a min above 0")
    return Parameter(low=float(low), high=float(high), log=kind == "log_uniform_values")


def to_text(value: Scalar) -> str:
    """A value as a person would type it behind a flag."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def grid_point(parameters: dict[str, Parameter], number: int) -> dict[str, Scalar]:
    """Point ``number`` (from 0) of the grid; the last parameter turns fastest.

    Optuna's `GridSampler` was tried: two workers ran five trials for four points.
    """
    point = {}
    for name in reversed(parameters):
        points = parameters[name].points
        assert points is not None
        number, index = divmod(number, len(points))
        point[name] = points[index]
    return dict(reversed(point.items()))


def combinations(parameters: dict[str, Parameter], at_most: int) -> list[dict[str, Scalar]]:
    """Every combination of `Parameter.samples`; where these are too many, every value beside the others' first."""
    lists: Sequence[Sequence[Scalar]] = [parameter.samples for parameter in parameters.values()]
    if math.prod(map(len, lists)) <= at_most:
        return [dict(zip(parameters, values, strict=True)) for values in product(*lists)]
    first = {name: parameter.samples[0] for name, parameter in parameters.items()}
    return [first | {name: value} for name, parameter in parameters.items() for value in parameter.samples]
