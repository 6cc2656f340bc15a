"""Settings of ``--method dni``."""

from typing import Literal

from sections.fields import Other, setting
from sections.labels import Smoothing
from sections.rule import MethodArgs, recipe


class DniArgs(MethodArgs):
    """Synthetic gradients (dni, cdni)."""

    GROUPS = (Smoothing,)
    RECIPE = recipe(learning_rate=0.015)

    unlock: Literal["backward", "forward"] = setting(
        "backward", "what no block waits for: the gradient from above, or its input from below too", on=("forward",),
        excludes={"first_trainable_block": (Other(0), "the first block that learns would wait for those below it")},
    )  # fmt: skip
    bp_lambda: float = setting(
        0.0, "share of the gradient from above in a block's signal (1: back-propagation)", ge=0, le=1,
        excludes={"unlock": (("forward",), "a block would wait for all above it")},
    )  # fmt: skip
    context: bool = setting(False, "give the synthesiser the labels")
    synthesiser_rate_scale: float = setting(
        1.0, "learning rate of the synthesisers in units of the blocks' (--learning_rate)", ge=0
    )
