"""Settings of ``--method dfa``."""

from typing import Literal

from sections.fields import Above, again, setting
from sections.labels import Smoothing
from sections.rule import MethodArgs, recipe
from sections.rules.fa import FaArgs


class DfaArgs(MethodArgs):
    """Direct feedback alignment (dfa)."""

    GROUPS = (Smoothing,)
    RECIPE = recipe(learning_rate=0.015)

    feedback: Literal[
        "random", "sparse", "few_bits", "sign", "adaptive", "low_rank", "correlation", "bidirectional"
    ] = setting(
        "random", "way of the error at the logits to each block", on=("correlation",),
        excludes={"num_replicas": (Above(1), "each would have a correlation of its own, and none the saved one")},
    )  # fmt: skip
    feedback_density: float = again(FaArgs, "feedback_density", 0.1)
    feedback_bits: int = again(FaArgs, "feedback_bits", 4)
    feedback_rate_scale: float = setting(
        0.1, "learning rate of feedback that is learned in units of the blocks' (--learning_rate)", ge=0,
        needs={"feedback": ("adaptive", "low_rank", "bidirectional")},
    )  # fmt: skip
    feedback_rank: int = setting(
        4, "numbers to which the error is reduced on its way", ge=1, needs={"feedback": ("low_rank",)}
    )
    correlation_momentum: float = setting(
        0.999, "share of the correlation that is kept at a step", ge=0, lt=1, needs={"feedback": ("correlation",)}
    )
    ignore_derivative: bool = again(FaArgs, "ignore_derivative", False)
