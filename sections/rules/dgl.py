"""Settings of ``--method dgl``."""

from sections.fields import POSITIVE, setting
from sections.heads import Heads, Momentum
from sections.labels import Smoothing, SuperClasses
from sections.modules import WAITS, Modules, Overlap
from sections.phases import Phases
from sections.rule import MethodArgs, recipe
from sections.task import Tasks


class DglArgs(MethodArgs):
    """Decoupled greedy learning (dgl)."""

    GROUPS = (Smoothing, SuperClasses, Heads, Momentum, Modules, Overlap, Phases, Tasks)
    RECIPE = recipe(learning_rate=0.015)
    BLOCKS_ALONE = True

    is_direct_global: bool = setting(
        False, "mix the last block's logit gradient into every block's",
        excludes=WAITS | {"overlap": (POSITIVE, ""), "sequential": ((True,), "")},
    )  # fmt: skip
    last_gradient_weight: float = setting(
        0.5,
        "weight of the last block's logit gradient in that mixture",
        ge=0,
        le=1,
        needs={"is_direct_global": (True,)},
    )
