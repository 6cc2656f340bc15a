"""Settings of ``--method fg``."""

from typing import Literal

from sections.fields import again, setting
from sections.heads import HeadKind, Heads
from sections.labels import Smoothing
from sections.rule import MethodArgs, recipe
from sections.tasks._base import INNER

RANDOM, LOCAL = {"guess": ("random",)}, {"guess": ("local",)}


class FgArgs(MethodArgs):
    """Forward gradients (fg)."""

    GROUPS = (Smoothing, Heads)
    RECIPE = recipe(learning_rate=0.01)

    perturb: Literal["activity", "weight"] = setting(
        "activity", "what is moved to see how the loss changes: the output of every block, or its weights",
        on=("activity", "weight"),
        excludes={"compile": ((True,), "compiled layers have no forward derivative")},
    )  # fmt: skip
    guess: Literal["random", "local"] = setting(
        "random", "where it is moved to: a random direction, or along the gradient of a loss at the block's own head"
    )
    tangent: Literal["rademacher", "normal"] = setting(
        "rademacher", "numbers of a random direction: signs, or normal", needs=RANDOM
    )
    directions: int = setting(
        1, "random directions that every batch is tried in, a pass for each and every block; their mean is taken", ge=1,
        needs=RANDOM,
    )  # fmt: skip
    pred_aux_type: HeadKind = again(Heads, "pred_aux_type", "linear", needs=LOCAL | INNER)
