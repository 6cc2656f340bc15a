"""Settings of ``--method dfa``."""

from sections.labels import Smoothing
from sections.rule import MethodArgs


class DfaArgs(MethodArgs):
    """Direct feedback alignment (dfa)."""

    GROUPS = (Smoothing,)
