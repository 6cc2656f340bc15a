"""Settings of ``--method infopro``."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from sections.fields import again, setting
from sections.heads import Heads, LearnedHead, Momentum
from sections.labels import Smoothing, SuperClasses
from sections.modules import Modules, Overlap
from sections.phases import Phases
from sections.rule import MethodArgs
from sections.task import Tasks
from sections.tasks._base import INNER
from sections.tasks.supcon import SupconArgs


class InfoproArgs(MethodArgs):
    """Information propagation (infopro)."""

    GROUPS = (Smoothing, SuperClasses, Heads, Momentum, Modules, Overlap, Phases, Tasks)
    BLOCKS_ALONE = True

    label_loss: Literal["softmax", "contrast"] = setting(
        "contrast", "what blocks learn from the labels: their classifier's cross-entropy, or which images share one",
        needs=INNER, on=("contrast",), excludes={"pred_aux_type": (("linear",), "its weights start at zero, where all "
            "embeddings are equal and the loss has no gradient; choose another head")},
    )  # fmt: skip
    reconstruction_weight_first: float = setting(5.0, "weight of drawing the image, first block", ge=0, needs=INNER)
    reconstruction_weight_last: float = setting(0.2, "the same in the block before the last", ge=0, needs=INNER)
    label_weight_first: float = setting(0.05, "weight of the loss with labels, first block", ge=0, needs=INNER)
    label_weight_last: float = setting(0.5, "the same in the block before the last", ge=0, needs=INNER)
    contrast_temperature: float = again(
        SupconArgs, "contrast_temperature", 0.07, description="temperature of contrastive losses with labels",
        unless={"label_loss": ("contrast",)},
    )  # fmt: skip
    pred_aux_type: LearnedHead = again(Heads, "pred_aux_type", "1c2f")
    aux_mlp_hidden_dim: int = again(Heads, "aux_mlp_hidden_dim", 128)

    @property
    def contrasts_labels(self) -> bool:
        """By its own loss, or by a task's."""
        return self.label_loss == "contrast" or super().contrasts_labels

    @model_validator(mode="after")
    def _something_to_learn(self) -> InfoproArgs:
        for end in ("first", "last"):
            names = [f"reconstruction_weight_{end}", f"label_weight_{end}"]
            if not self.tasks.active and not any(getattr(self, name) for name in names):
                raise ValueError(f"--{names[0]} 0 and --{names[1]} 0 leave a block nothing to learn from")
        return self
