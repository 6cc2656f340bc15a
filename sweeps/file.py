"""A sweep file: wandb's format, read and understood before anything is written.

https://docs.wandb.ai/models/sweeps/sweep-config-keys describes the format. What only the server can do is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from consts import PROGRAM
from sections.yaml_file import read_yaml
from sweeps.space import Parameter, ParameterSpec, understand
from utils import UsageError, did_you_mean

_MACROS = ("${env}", "${interpreter}", "${program}", "${args}")


class Spec(BaseModel):
    """A part of the file, closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Metric(Spec):
    """What is looked for: a metric of the runs' epochs. wandb's default goal is to minimize."""

    name: str
    goal: Literal["minimize", "maximize"] = "minimize"
    target: float | None = None


class EarlyTerminate(Spec):
    """Hyperband: a trial goes on at epochs ``min_iter * eta^k`` if it is among the best ``1 / eta`` there."""

    type: Literal["hyperband"]
    min_iter: int | None = Field(None, ge=1)
    max_iter: int | None = Field(None, ge=1)
    s: int | None = Field(None, ge=1)
    eta: int = Field(3, ge=2)

    @model_validator(mode="after")
    def _one_way(self) -> EarlyTerminate:
        if (self.min_iter is None) == (self.max_iter is None):
            raise ValueError("give either min_iter, or max_iter with s")
        if (self.max_iter is None) != (self.s is None):
            raise ValueError("max_iter and s go together")
        if self.first > (self.max_iter or self.first):
            raise ValueError("max_iter is too small for eta: nothing would be stopped")
        return self

    @property
    def first(self) -> int:
        """The epoch of the first decision."""
        if self.max_iter is None or self.s is None:
            return self.min_iter or 1
        return max(1, self.max_iter // self.eta**self.s)


class SweepSpec(Spec):
    """The whole file. ``project``, ``entity`` and ``description`` are for wandb alone."""

    program: str
    method: Literal["grid", "random", "bayes"]
    metric: Metric
    parameters: dict[str, ParameterSpec] = Field(min_length=1)
    early_terminate: EarlyTerminate | None = None
    run_cap: int | None = Field(None, ge=1)
    command: tuple[str, ...] = _MACROS
    name: str = Field("", pattern=r"^[A-Za-z0-9._-]*$")
    description: str = ""
    project: str = ""
    entity: str = ""


@dataclass(frozen=True)
class SweepFile:
    """A sweep file that makes sense by itself.

    Attributes:
        path: where it was read.
        spec: its content.
        parameters: what varies or is fixed, by flag name.
        fixed_words: words of ``command`` that every trial gets beside its parameters.
    """

    path: Path
    spec: SweepSpec
    parameters: dict[str, Parameter]
    fixed_words: tuple[str, ...]

    @property
    def varied(self) -> dict[str, Parameter]:
        """The parameters that are searched."""
        return {name: parameter for name, parameter in self.parameters.items() if not parameter.is_fixed}

    @property
    def grid_size(self) -> int | None:
        """Number of points of a grid; None for the other methods."""
        if self.spec.method != "grid":
            return None
        return prod(len(parameter.points or ()) for parameter in self.varied.values())


def read_sweep(path: Path) -> SweepFile:
    """Read a sweep file.

    Raises:
        UsageError: it is missing, damaged, or asks for what cannot be done; one line with its name.
    """
    try:
        return _understand(path, _read_sweep(path))
    except ValidationError as error:
        raise UsageError(f"{path}: {_first(error)}") from None
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None


def _read_sweep(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ValueError("a sweep file holds keys (method, metric, parameters, ...)")
    return content


def _understand(path: Path, content: dict[str, Any]) -> SweepFile:
    spec = SweepSpec(**{str(key): value for key, value in content.items()})
    if Path(spec.program).name != PROGRAM:
        raise ValueError(f"program {spec.program!r}: sweeps without wandb's server run {PROGRAM}")
    unknown = [word for word in spec.command if word.startswith("${") and word not in _MACROS]
    if unknown or "${args}" not in spec.command:
        raise ValueError(f"command: sweeps without wandb's server know {' '.join(_MACROS)} and fixed flags")
    words = [word for word in spec.command if word not in _MACROS and Path(word).name not in ("python", PROGRAM)]
    parameters = {name: understand(name, parameter) for name, parameter in spec.parameters.items()}
    file = SweepFile(path, spec, parameters, tuple(words))
    if not file.varied:
        raise ValueError("nothing varies: give a parameter with values, or with min and max")
    if spec.method == "grid" and (endless := [name for name, each in file.varied.items() if each.points is None]):
        raise ValueError(f"parameters.{endless[0]}: a grid needs values (or whole numbers from min to max)")
    return file


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, in the file's own words."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("int", "float"))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        *parents, key = first["loc"]
        owner: Any = {"parameters": ParameterSpec, "metric": Metric, "early_terminate": EarlyTerminate}
        known = (owner[parents[0]] if parents else SweepSpec).model_fields
        return f"unknown key {where}{did_you_mean(str(key), known)}"
    if first["type"] == "missing":
        return f"{where} is missing"
    return f"{where}: {message[0].lower()}{message[1:]}" if where else message
