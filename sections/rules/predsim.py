"""Settings of ``--method predsim``."""

from typing import Any

from pydantic import model_validator

from sections.fields import TRUE_WORDS, Below, again, setting
from sections.heads import HeadKind, Heads, Momentum
from sections.labels import Smoothing, SuperClasses
from sections.modules import Modules, Overlap
from sections.phases import Phases
from sections.rule import MethodArgs, recipe
from sections.task import Tasks
from sections.tasks._base import INNER

CLASSIFIES = INNER | {"sim_loss_weight": Below(1)}


class PredsimArgs(MethodArgs):
    """Prediction and similarity matching (predsim)."""

    GROUPS = (Smoothing, SuperClasses, Heads, Momentum, Modules, Overlap, Phases, Tasks)
    RECIPE = recipe(learning_rate=0.03)
    BLOCKS_ALONE = True

    pred_aux_type: HeadKind = again(Heads, "pred_aux_type", "linear", needs=CLASSIFIES)
    man: bool = again(Momentum, "man", False, needs=CLASSIFIES)
    sim_loss_weight: float = setting(
        0.99, "weight of similarity matching against cross-entropy in every block (1: similarity alone)", ge=0, le=1,
        shown="0.99, with --bio 0.01",
    )  # fmt: skip
    dim_in_decoder: int = setting(
        2048, "features to which linear heads pool, or fewer", ge=1, needs={"pred_aux_type": ("linear",)},
        unless={"bio": (True,)},
    )  # fmt: skip
    bio: bool = setting(
        False, "the more biological form: random bits for targets, fixed random weights on the way down, no g",
        excludes={"man": ((True,), "")}, requires={"pred_aux_type": (("linear",), "its heads are linear")},
    )  # fmt: skip
    local_classifier: bool = setting(
        False, "no gradient crosses the classifier either: its hidden layers are blocks with heads of their own",
        requires={"built_in": ((True,), "the classifier's layers must be known")},
    )  # fmt: skip

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_bio(cls, values: dict[str, Any]) -> dict[str, Any]:
        bio = str(values.get("bio")).lower() in TRUE_WORDS
        return {"sim_loss_weight": 0.01} | values if bio else values
