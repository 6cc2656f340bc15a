"""Settings of ``--method drtp``."""

from sections.labels import Smoothing
from sections.rule import MethodArgs, recipe


class DrtpArgs(MethodArgs):
    """Direct random target projection (drtp)."""

    GROUPS = (Smoothing,)
    RECIPE = recipe(learning_rate=0.005)
