"""Settings of ``--method drtp``."""

from sections.labels import Smoothing
from sections.rule import MethodArgs


class DrtpArgs(MethodArgs):
    """Direct random target projection (drtp)."""

    GROUPS = (Smoothing,)
