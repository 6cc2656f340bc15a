"""Settings of sparse parities."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from sections.datasets._base import Generated
from sections.fields import setting

PARITY = {"dataset": ("parity",)}


class ParityArgs(Generated):
    """Data set parity."""

    num_bits: int = setting(30, "bits of an image", unit="bits", ge=2, le=4096, needs=PARITY)
    parity_size: int = setting(3, "how many of them the label is the parity of", unit="bits", ge=1, needs=PARITY)
    parity_inputs: Literal["uniform", "biased", "mixture"] = setting(
        "uniform", "bits are independent (uniform: fair; biased: with --bit_probability), or, in half of the images, "
        "those of the parity are all equal",
        needs=PARITY,
    )  # fmt: skip
    bit_probability: float = setting(
        0.25, "probability that a bit is 1", gt=0, lt=1, needs={"parity_inputs": ("biased",)}
    )

    @model_validator(mode="after")
    def _possible(self) -> ParityArgs:
        if self.parity_size > self.num_bits:
            raise ValueError(f"--parity_size {self.parity_size}: an image has {self.num_bits} bits (--num_bits)")
        if self.parity_inputs == "mixture" and self.parity_size % 2 == 0:
            raise ValueError(
                f"--parity_size {self.parity_size}: with --parity_inputs mixture it must be odd, since the parity of "
                "an even number of equal bits is always 0"
            )
        return self

    def num_inputs(self) -> int:
        """All strings of so many bits."""
        return int(2**self.num_bits)

    def num_values(self) -> int:
        """The bits."""
        return self.num_bits
