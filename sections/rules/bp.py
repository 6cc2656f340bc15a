"""Settings of ``--method bp``."""

from sections.checkpoints import Checkpoints
from sections.labels import Smoothing
from sections.rule import MethodArgs, recipe


class BpArgs(MethodArgs):
    """Back-propagation (bp)."""

    GROUPS = (Smoothing, Checkpoints)
    RECIPE = recipe(learning_rate=0.02)
