"""Settings that rules share which relax states or errors several times a batch (`methods._relax`)."""

from __future__ import annotations

from sections.fields import Section, setting


class Relaxation(Section):
    """Inner iterations."""

    inference_steps: int = setting(5, "times that errors or states are moved on every batch", ge=1)
    inference_rate: float | None = setting(
        None, "length of such a move, in units of the energy's gradient; signals are divided by 1 - (1 - rate)^steps",
        ge=1e-6, le=1,
    )  # fmt: skip
