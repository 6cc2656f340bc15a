"""Settings of ``--method ff``."""

from typing import Literal

from sections.fields import Other, setting
from sections.modules import Modules, Overlap
from sections.phases import Phases
from sections.rule import MethodArgs, recipe
from sections.tasks._base import INNER


class FfArgs(MethodArgs):
    """Forward-forward (ff)."""

    # No block classifies: there are no heads, no label smoothing, no coarse labels and no tasks beside a classifier.
    GROUPS = (Modules, Overlap, Phases)
    RECIPE = recipe(learning_rate=0.01)
    BLOCKS_ALONE = True
    CLASSIFIES = False

    goodness_loss: Literal["ff", "symba"] = setting(
        "ff", "what blocks learn: to be above a threshold with the right label and below it with a wrong one (ff), or "
        "better with the right one (symba)",
    )  # fmt: skip
    goodness_threshold: float = setting(
        0.5, "theta: that threshold, in units of the number of channels", gt=0, needs={"goodness_loss": ("ff",)}
    )
    goodness_alpha: float = setting(
        4.0, "alpha: factor on the difference of both", gt=0, needs={"goodness_loss": ("symba",)}
    )
    label_in: Literal["image", "channel"] = setting(
        "channel", "where blocks see the label: in the first pixels of the image, as many as there are classes, or in "
        "a channel of its own",
        on=("channel",),
        excludes={"init_from": (Other(None), "the first convolution has an input channel more; give --label_in image")},
    )  # fmt: skip
    first_scored_block: int = setting(
        1, "the class is that with the most goodness in the blocks from this one on, or in the last", ge=0,
        needs=INNER, measures=True,
    )  # fmt: skip
