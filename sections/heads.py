"""Option groups: the classification heads of local rules."""

from __future__ import annotations

from typing import Literal

from sections.fields import POSITIVE, Above, Section, setting
from sections.modules import WAITS
from sections.tasks._base import INNER

LearnedHead = Literal["mlp", "cnn", "pooled", "mlp_sr", "linear", "1c2f", "cnn_full", "conv", "auglocal", "monoforward"]
HeadKind = Literal[LearnedHead, "channelwise", "lls", "random"]  # the last three have no parameters
WITH_HIDDEN_LAYERS = ("mlp", "cnn", "pooled", "mlp_sr", "1c2f", "cnn_full", "conv")
WITH_FREE_WIDTH = ("mlp", "cnn", "pooled", "1c2f", "conv")


class Heads(Section):
    """Heads of local methods."""

    pred_aux_type: HeadKind = setting(
        "linear", "classification head of every block but the last", needs=INNER, on=("auglocal",),
        requires={"built_in": ((True,), "the heads of auglocal are later blocks, made anew")},
    )  # fmt: skip
    aux_mlp_n_hidden_layers: int = setting(
        1,
        "hidden layers of the heads' classifier (linear has none; those of conv and cnn_full are convolutions)",
        ge=0,
        needs={"pred_aux_type": WITH_HIDDEN_LAYERS},
    )
    aux_mlp_hidden_dim: int = setting(
        256,
        "width of those layers (mlp_sr and cnn_full have their own)",
        ge=1,
        needs={"pred_aux_type": WITH_FREE_WIDTH, "aux_mlp_n_hidden_layers": POSITIVE},
    )
    aux_depth: int = setting(
        2, "blocks of such a head, or all that follow", ge=1, needs={"pred_aux_type": ("auglocal",)}
    )
    aux_pyramid: float = setting(
        0.0, "how much of its depth an auglocal head loses from the first to the last (1: all but one block)",
        ge=0, le=1, needs={"pred_aux_type": ("auglocal",), "aux_depth": Above(1)},
    )  # fmt: skip


class Momentum(Section):
    """Momentum auxiliary network of local methods."""

    man: bool = setting(
        False,
        "heads see the output through two copies of the next block's first layers: trained, and averaged in time",
        needs=INNER,
        excludes=WAITS | {"pred_aux_type": (("auglocal",), ""), "overlap": (POSITIVE, ""), "sequential": ((True,), "")},
    )
    man_momentum: float = setting(0.995, "how much of that average stays at a step", ge=0, le=1, needs={"man": (True,)})
