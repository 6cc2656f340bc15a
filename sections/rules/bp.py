"""Settings of ``--method bp``."""

from __future__ import annotations

from sections.labels import Smoothing
from sections.rule import MethodArgs


class BpArgs(MethodArgs):
    """Back-propagation (bp)."""

    GROUPS = (Smoothing,)
