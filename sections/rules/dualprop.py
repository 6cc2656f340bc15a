"""Settings of ``--method dualprop``."""

from typing import Literal

from sections.fields import Other, setting
from sections.labels import Smoothing
from sections.rule import MethodArgs, recipe


class DualpropArgs(MethodArgs):
    """Dual propagation (dualprop)."""

    GROUPS = (Smoothing,)
    RECIPE = recipe(learning_rate=0.015)

    nudge: float = setting(
        0.1, "beta: how far the output states lie apart, in units of each image's own error", gt=0, le=10
    )
    mixture: float = setting(
        0.5,
        "alpha: share of the state that agrees with the error; a unit's activity is this mixture of both",
        ge=0,
        le=1,
    )
    weighting: Literal["transposed", "plain"] = setting(
        "transposed", "which state the error moves by alpha: that of the improved rule (DP^T) or of the first one (DP)",
        needs={"mixture": Other(0.5)},
    )  # fmt: skip
    feedback: Literal["symmetric", "kolen_pollack"] = setting(
        "symmetric", "weights through which differences go down: the forward weights, or weights that take their steps"
    )
    sweeps: int = setting(1, "times that all states are found anew, from the output down", ge=1)
