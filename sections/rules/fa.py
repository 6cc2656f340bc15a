"""Settings of ``--method fa``."""

from typing import Literal

from sections.fields import setting
from sections.labels import Smoothing
from sections.rule import MethodArgs, recipe


class FaArgs(MethodArgs):
    """Feedback alignment (fa)."""

    GROUPS = (Smoothing,)
    RECIPE = recipe(learning_rate=0.015)

    feedback: Literal[
        "random", "usf", "brsf", "frsf", "kolen_pollack", "weight_mirror", "sparse", "few_bits"
    ] = setting("random", "weights through which the error goes down")  # fmt: skip
    mirror_rate: float = setting(
        0.1, "share of the mirrored weights that a step renews", gt=0, le=1, needs={"feedback": ("weight_mirror",)}
    )
    mirror_patches: int = setting(
        8, "patches of noise for each image that the weights are mirrored with", ge=1,
        needs={"feedback": ("weight_mirror",)},
    )  # fmt: skip
    feedback_density: float = setting(
        0.1, "share of the feedback weights that are not zero", gt=0, le=1, needs={"feedback": ("sparse",)}
    )
    feedback_bits: int = setting(
        4, "bits in which a value of the error is sent down", ge=1, le=16, needs={"feedback": ("few_bits",)}
    )
    ignore_derivative: bool = setting(
        False, "let the error cross each ReLU without its derivative",
        requires={"built_in": ((True,), "the activations must be known")},
    )  # fmt: skip
