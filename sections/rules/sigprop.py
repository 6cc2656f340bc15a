"""Settings of ``--method sigprop``."""

from typing import Literal

from sections.fields import setting
from sections.labels import Smoothing
from sections.modules import Modules
from sections.phases import Phases
from sections.rule import MethodArgs, recipe


class SigpropArgs(MethodArgs):
    """Signal propagation (sigprop)."""

    # No overlap: the labels' images learn with the first block alone.
    GROUPS = (Smoothing, Modules, Phases)
    RECIPE = recipe(learning_rate=0.02)
    BLOCKS_ALONE = True

    signal_score: Literal["distance", "dot"] = setting(
        "dot", "how near an image is to a label in a block: the dot product of their maps, or minus the squared "
        "distance; a sum over the channels, mean over the positions",
    )  # fmt: skip
    signal_temperature: float = setting(1.0, "divides these scores before the softmax", gt=0)
    fixed_signals: bool = setting(
        False, "the images of the labels stay random, as they do below frozen blocks; else they learn with the first "
        "block",
        needs={"first_trainable_block": (0,)},
    )  # fmt: skip
    signal_rate_scale: float = setting(
        300.0, "the learning rate of these images over that of the network", gt=0, needs={"fixed_signals": (False,)}
    )
