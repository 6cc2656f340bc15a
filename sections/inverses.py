"""Settings that target rules share: how the inverses of a target rule learn (`methods._target`)."""

from __future__ import annotations

from sections.fields import Above, Section, again, setting
from sections.labels import Smoothing
from sections.rule import MethodArgs, recipe
from sections.tasks._base import INNER

OF_OUTPUT = {"target_rule": ("sdtp", "ao_sdtp")}  # of a rule that has the setting


class Inverses(Section):
    """Inverses of target rules."""

    inverse_noise: float = setting(
        0.1, "standard deviation of the noise from which inverses learn, in units of the activations", gt=0, le=10
    )
    inverse_steps: int = setting(1, "steps that the inverses learn on every batch; the optimiser takes the last", ge=1)
    inverse_step_size: float = setting(
        0.1, "learning rate of the steps before the last, which are plain gradient descent", gt=0,
        needs={"inverse_steps": Above(1)},
    )  # fmt: skip
    inverse_rate_scale: float = setting(
        1.0, "learning rate of the inverses in units of the blocks' (--learning_rate)", ge=0
    )


class ChainArgs(MethodArgs):
    """Targets that go down block by block, settings of every rule of that kind."""

    GROUPS = (Smoothing, Inverses)
    RECIPE = recipe(learning_rate=0.015)

    # The only block that learns gets its target from the loss: without an inverse, unless that of the output is one.
    target_step: float = setting(
        1.0, "step with which targets are made, on each image's own loss", gt=0, le=10, needs=INNER, unless=OF_OUTPUT
    )
    inverse_noise: float = again(Inverses, "inverse_noise", 0.1, needs=INNER, unless=OF_OUTPUT)
    inverse_steps: int = again(Inverses, "inverse_steps", 1, needs=INNER, unless=OF_OUTPUT)
    inverse_rate_scale: float = again(Inverses, "inverse_rate_scale", 1.0, needs=INNER, unless=OF_OUTPUT)
