"""Settings of ``--method pc``."""

from typing import Literal

from sections.fields import again, setting
from sections.labels import Smoothing
from sections.relaxation import Relaxation
from sections.rule import MethodArgs, recipe

MOVES = {"inference": ("error", "state", "fixed")}


class PcArgs(MethodArgs):
    """Predictive coding (pc)."""

    GROUPS = (Smoothing, Relaxation)
    RECIPE = recipe(learning_rate=0.02)

    inference: Literal["error", "state", "zil", "fixed"] = setting(
        "error", "what is relaxed: errors, through the whole network at once; states, each from its neighbours; states "
        "for one step at the right moment (zil); states while all predictions stay those of the forward pass (fixed)",
    )  # fmt: skip
    inference_steps: int = again(Relaxation, "inference_steps", 5, needs=MOVES)
    inference_rate: float | None = again(
        Relaxation, "inference_rate", None, needs=MOVES, shown="0.01 for errors, 0.1 for states"
    )
