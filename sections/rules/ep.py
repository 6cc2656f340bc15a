"""Settings of ``--method ep``."""

from sections.fields import again
from sections.labels import Smoothing
from sections.relaxation import Nudge, Relaxation, Signs
from sections.rule import MethodArgs, recipe


class EpArgs(MethodArgs):
    """Equilibrium propagation (ep)."""

    GROUPS = (Smoothing, Nudge, Relaxation)
    RECIPE = recipe(learning_rate=0.02)

    nudging: Signs = again(Nudge, "nudging", "centred")
    nudge: float = again(Nudge, "nudge", 0.02)
    inference_steps: int = again(Relaxation, "inference_steps", 4)
    inference_rate: float | None = again(Relaxation, "inference_rate", 0.5)
