"""Settings that target rules share: how the inverses of a target rule learn (`methods._target`)."""

from __future__ import annotations

from sections.fields import Above, Section, setting
from sections.labels import Smoothing
from sections.rule import MethodArgs


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

    target_step: float = setting(1.0, "step with which targets are made, on each image's own loss", gt=0, le=10)
