"""Settings of ``--method ep``."""

from typing import Literal

from sections.fields import again, setting
from sections.labels import Smoothing
from sections.relaxation import Relaxation
from sections.rule import MethodArgs, recipe


class EpArgs(MethodArgs):
    """Equilibrium propagation (ep)."""

    GROUPS = (Smoothing, Relaxation)
    RECIPE = recipe(learning_rate=0.02)

    nudging: Literal["centred", "one_sided", "random_sign"] = setting(
        "centred", "signs of beta: both, the gradient being half their difference; plus; or one drawn for every batch"
    )
    nudge: float = setting(
        0.02, "beta: how much the loss weighs in the energy, of each image's own loss", ge=1e-6, le=10
    )
    inference_steps: int = again(Relaxation, "inference_steps", 4)
    inference_rate: float | None = again(Relaxation, "inference_rate", 0.5)
