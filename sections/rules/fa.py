"""Settings of ``--method fa``."""

from sections.labels import Smoothing
from sections.rule import MethodArgs


class FaArgs(MethodArgs):
    """Feedback alignment (fa)."""

    GROUPS = (Smoothing,)
