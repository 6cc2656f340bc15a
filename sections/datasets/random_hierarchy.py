"""Settings of the Random Hierarchy Model."""

from __future__ import annotations

from pydantic import model_validator

from sections.datasets._base import Generated
from sections.fields import setting

HIERARCHY = {"dataset": ("random_hierarchy",)}
MOST_TUPLES, MOST_POSITIONS = 2**20, 4096


class RandomHierarchyArgs(Generated):
    """Data set random_hierarchy."""

    hierarchy_classes: int = setting(8, "classes, n_c", ge=2, le=1000, needs=HIERARCHY)
    hierarchy_vocabulary: int = setting(
        8, "symbols of every level, v; one is 1 in one of so many channels", ge=2, le=1000, needs=HIERARCHY
    )
    hierarchy_multiplicity: int = setting(4, "tuples that stand for a symbol, m", ge=1, needs=HIERARCHY)
    hierarchy_branching: int = setting(2, "symbols of a tuple, s", ge=2, needs=HIERARCHY)
    hierarchy_depth: int = setting(
        3, "levels, L; an image has s to this power positions", unit="levels", ge=1, le=12, needs=HIERARCHY
    )

    @model_validator(mode="after")
    def _possible(self) -> RandomHierarchyArgs:
        v, n, m, s, depth = (
            self.hierarchy_vocabulary, self.hierarchy_classes, self.hierarchy_multiplicity, self.hierarchy_branching,
            self.hierarchy_depth,
        )  # fmt: skip
        if s > MOST_POSITIONS or s**depth > MOST_POSITIONS:
            raise ValueError(
                f"--hierarchy_branching {s} with --hierarchy_depth {depth}: an image can have {MOST_POSITIONS} "
                "positions at most"
            )
        if s > MOST_TUPLES.bit_length() or v**s > MOST_TUPLES:
            raise ValueError(
                f"--hierarchy_branching {s} with --hierarchy_vocabulary {v}: rules are chosen from a list of all "
                f"v^s tuples, which can be {MOST_TUPLES} at most"
            )
        symbols = max(n, v) if depth > 1 else n
        if m * symbols > v**s:
            raise ValueError(
                f"--hierarchy_multiplicity {m}: {symbols} symbols need different tuples each, and there are {v**s}, "
                f"so it can be {v**s // symbols} at most"
            )
        return self

    def num_inputs(self) -> int:
        """``n_c m^((s^L - 1) / (s - 1))``: a choice of m at every inner node of the tree."""
        s, depth = self.hierarchy_branching, self.hierarchy_depth
        return int(self.hierarchy_classes * self.hierarchy_multiplicity ** ((s**depth - 1) // (s - 1)))

    def num_values(self) -> int:
        """A channel for each symbol, at every position."""
        return int(self.hierarchy_vocabulary * self.hierarchy_branching**self.hierarchy_depth)
