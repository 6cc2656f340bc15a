"""Settings of ``--method ldrl``."""

from sections.fields import again
from sections.inverses import ChainArgs


class LdrlArgs(ChainArgs):
    """Targets with local difference reconstruction (ldrl)."""

    target_step: float = again(ChainArgs, "target_step", 0.1)
    inverse_noise: float = again(ChainArgs, "inverse_noise", 0.3)
