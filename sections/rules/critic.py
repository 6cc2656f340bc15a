"""Settings of ``--method critic``."""

from sections.fields import again, setting
from sections.heads import Heads, LearnedHead
from sections.labels import Smoothing
from sections.modules import Modules
from sections.rule import MethodArgs
from sections.task import Tasks
from sections.tasks._base import INNER


class CriticArgs(MethodArgs):
    """Local critics (critic)."""

    # A block learns from its own critic alone, and a critic from the losses of the next block on the same labels: there
    # is no place for losses from further up, for weights of the next block in a head, for phases or for coarse labels.
    GROUPS = (Smoothing, Heads, Modules, Tasks)

    pred_aux_type: LearnedHead = again(Heads, "pred_aux_type", "conv", description="critic of every block but the last")
    aux_mlp_hidden_dim: int = again(Heads, "aux_mlp_hidden_dim", 128)
    cascade_loss_weight: float = setting(
        1.0, "weight of what a critic learns from", ge=0, needs=INNER | {"optimizer_type": ("SGD",)}
    )
    critic_rate_scale: float = setting(
        1.0, "learning rate of the critics in units of the blocks' (--learning_rate)", ge=0, needs=INNER
    )
