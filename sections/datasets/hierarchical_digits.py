"""Settings of the digits that are generated level by level."""

from __future__ import annotations

from sections.datasets._base import Generated
from sections.fields import setting

DIGITS = {"dataset": ("hierarchical_digits",)}
COUNT_OF_TWO_LEVELS = 216000  # counted by tests/datamodules/test_theory.py


class HierarchicalDigitsArgs(Generated):
    """Data set hierarchical_digits."""

    digit_levels: int = setting(
        3, "levels below the digit: strokes, then pixels (2: 16x16), then finer pixels (3: 32x32)", unit="levels",
        ge=2, le=3, needs=DIGITS,
    )  # fmt: skip

    def num_inputs(self) -> int:
        """The product of the choices at every place, summed over digits."""
        return COUNT_OF_TWO_LEVELS * int(5 ** (256 * (self.digit_levels - 2)))

    def num_values(self) -> int:
        """The pixels."""
        return int(4**self.digit_levels * 16)
