"""Settings of ``--method hopfield``."""

from sections.fields import Because, Holding, Other, again, setting
from sections.labels import Smoothing
from sections.relaxation import Nudge, Signs
from sections.rule import MethodArgs, recipe

# Of every run, since there are always free steps.
APART: dict[str, Because] = {
    "init_from": (Other(None), "this network has no BatchNorm"),
    "diagnostics": (Holding("alignment"), "back-propagation knows no network that settles"),
    "compile": ((True,), "settling runs the layers of a block one by one"),
}


class HopfieldArgs(MethodArgs):
    """Equilibrium propagation in a Hopfield network (hopfield)."""

    GROUPS = (Smoothing, Nudge)
    RECIPE = recipe(learning_rate=0.1)

    nudging: Signs = again(Nudge, "nudging", "centred")
    nudge: float = again(Nudge, "nudge", 0.5)
    free_steps: int = setting(
        10, "sweeps over all states in which they settle, in training and at inference", ge=1, excludes=APART
    )
    nudged_steps: int = setting(5, "such sweeps under each nudge, from the free states on", ge=1)
    settle_rate: float = setting(
        1.0, "part of the way that a state goes in a sweep to where its inputs want it", gt=0, le=1
    )
    weight_gain: float = setting(
        1.0, "standard deviation of the blocks' weights at the beginning, times the root of a unit's inputs", gt=0
    )
    output_feedback: bool = setting(
        False, "the output units feed back without a nudge too; with --nudging one_sided --nudge 1 that is contrastive "
        "Hebbian learning",
    )  # fmt: skip
