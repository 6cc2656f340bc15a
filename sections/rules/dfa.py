"""Settings of ``--method dfa``."""

from __future__ import annotations

from sections.labels import Smoothing
from sections.rule import MethodArgs


class DfaArgs(MethodArgs):
    """Direct feedback alignment (dfa)."""

    GROUPS = (Smoothing,)
