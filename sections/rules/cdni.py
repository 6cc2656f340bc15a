"""Settings of ``--method cdni``."""

from sections.fields import again
from sections.rules.dni import DniArgs


class CdniArgs(DniArgs):
    """Synthetic gradients from output and label (cdni)."""

    context: bool = again(DniArgs, "context", True)
