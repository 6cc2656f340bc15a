"""Settings of ``--method bp``."""

from sections.labels import Smoothing
from sections.rule import MethodArgs


class BpArgs(MethodArgs):
    """Back-propagation (bp)."""

    GROUPS = (Smoothing,)
