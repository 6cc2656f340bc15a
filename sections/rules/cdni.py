"""Settings of ``--method cdni``."""

from __future__ import annotations

from sections.fields import again
from sections.rules.dni import DniArgs


class CdniArgs(DniArgs):
    """Synthetic gradients from output and label (cdni)."""

    context: bool = again(DniArgs, "context", True)
