"""Settings of ``--method foton``."""

from sections.fields import setting
from sections.labels import Smoothing
from sections.rule import MethodArgs, recipe


class FotonArgs(MethodArgs):
    """Forward-only training with orthogonal weights (foton)."""

    GROUPS = (Smoothing,)
    RECIPE = recipe(learning_rate=0.01)

    refresh: int = setting(
        1, "steps after which the way of the error to the image is made anew of the weights (0: never)", unit="steps",
        ge=0,
    )  # fmt: skip
    orthonormal_weight: float = setting(
        1.0, "weight of what keeps the weights of every layer orthonormal, a step of Bjorck's in units of the gradient",
        ge=0, le=100,
    )  # fmt: skip
