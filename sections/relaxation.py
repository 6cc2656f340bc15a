"""Settings that rules share which relax states or errors several times a batch (`methods._relax`, `methods._nudge`)."""

from __future__ import annotations

from typing import Literal

from sections.fields import Section, setting

Signs = Literal["centred", "one_sided", "random_sign"]


class Relaxation(Section):
    """Inner iterations."""

    inference_steps: int = setting(5, "times that errors or states are moved on every batch", ge=1)
    inference_rate: float | None = setting(
        None, "length of such a move, in units of the energy's gradient; signals are divided by 1 - (1 - rate)^steps",
        ge=1e-6, le=1,
    )  # fmt: skip


class Nudge(Section):
    """Nudging by the loss."""

    nudging: Signs = setting(
        "centred", "signs of beta: both, the gradient being half their difference; plus; or one drawn for every batch"
    )
    nudge: float = setting(
        0.02, "beta: how much the loss weighs in the energy, of each image's own loss", ge=1e-6, le=10
    )
