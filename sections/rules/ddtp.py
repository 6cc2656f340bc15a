"""Settings of ``--method ddtp``."""

from sections.fields import setting
from sections.inverses import Inverses
from sections.labels import Smoothing
from sections.rule import MethodArgs, recipe


class DdtpArgs(MethodArgs):
    """Direct difference target propagation (ddtp)."""

    GROUPS = (Smoothing, Inverses)
    RECIPE = recipe(learning_rate=0.015)

    damping: float = setting(
        1.0, "weight decay of the feedback in units of how far noise moves a logit: 0 for Gauss-Newton targets, large "
        "for gradients", ge=0, le=1e6,
    )  # fmt: skip
