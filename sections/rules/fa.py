"""Settings of ``--method fa``."""

from __future__ import annotations

from sections.labels import Smoothing
from sections.rule import MethodArgs


class FaArgs(MethodArgs):
    """Feedback alignment (fa)."""

    GROUPS = (Smoothing,)
