"""Settings of ``--method dni``."""

from sections.fields import setting
from sections.labels import Smoothing
from sections.rule import MethodArgs


class DniArgs(MethodArgs):
    """Synthetic gradients (dni, cdni)."""

    GROUPS = (Smoothing,)

    context: bool = setting(False, "give the synthesiser the labels")
    synthesiser_rate_scale: float = setting(
        1.0, "learning rate of the synthesisers in units of the blocks' (--learning_rate)", ge=0
    )
