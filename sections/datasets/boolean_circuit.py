"""Settings of tree-structured Boolean circuits."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from sections.datasets._base import Generated
from sections.fields import setting

CIRCUIT = {"dataset": ("boolean_circuit",)}
RANGES = {"and_or": (0.5, 1.0), "xor": (0.0, 0.5)}  # of the correlation between a gate and one of its two inputs
UNIFORM = {"and_or": 2 / 3, "xor": 0.0}  # where pairs are drawn uniformly


class BooleanCircuitArgs(Generated):
    """Data set boolean_circuit."""

    circuit_depth: int = setting(
        4, "levels of gates; an image has 2 to this power bits", unit="levels", ge=1, le=10, needs=CIRCUIT
    )
    circuit_gates: Literal["and_or", "xor"] = setting(
        "and_or", "each gate is one of AND, OR, NAND, NOR, or one of XOR, XNOR, at random", needs=CIRCUIT
    )
    local_correlation: float | None = setting(
        None, "correlation of every gate with each of its inputs, up to the sign; 0.5 to 1 with and_or gates, 0 to 0.5 "
        "with xor gates",
        shown="that of pairs drawn uniformly: 2/3, and 0 with xor", ge=0, le=1, needs=CIRCUIT,
    )  # fmt: skip

    @model_validator(mode="after")
    def _possible(self) -> BooleanCircuitArgs:
        low, high = RANGES[self.circuit_gates]
        if not low <= self.correlation <= high:
            raise ValueError(
                f"--local_correlation {self.correlation:g}: with --circuit_gates {self.circuit_gates} it must lie in "
                f"{low:g} to {high:g}"
            )
        return self

    @property
    def correlation(self) -> float:
        """``--local_correlation``, or that of pairs drawn uniformly."""
        return UNIFORM[self.circuit_gates] if self.local_correlation is None else self.local_correlation

    def num_inputs(self) -> int:
        """All strings of so many bits; with the greatest correlation some are never drawn."""
        return int(2 ** self.num_values())

    def num_values(self) -> int:
        """The bits: two for every gate of the lowest level."""
        return int(2**self.circuit_depth)
