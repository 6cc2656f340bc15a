"""Classification losses on logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits_BN: Tensor, y_B: Tensor, label_smoothing: float = 0.0, reduction: str = "mean") -> Tensor:
    """Mean over the batch of ``-log softmax(logits)[y]``, in float32 or wider whatever the logits' type.

    With ``label_smoothing`` s the target is ``(1 - s) onehot(y) + s / N``. Equal logits give ``ln N``. ``reduction``
    ``"none"`` gives the (B,) values themselves.
    """
    logits_BN = logits_BN.float() if logits_BN.dtype.itemsize < 4 else logits_BN
    return F.cross_entropy(logits_BN, y_B, label_smoothing=label_smoothing, reduction=reduction)


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of ``sigmoid(logits)`` against targets in [0, 1] of the same shape, mean over all elements.

    In float32 or wider. Logits of 0 give ``ln 2`` whatever the targets.
    """
    logits = logits.float() if logits.dtype.itemsize < 4 else logits
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))


def merged_logits(logits_BN: Tensor, member_GN: Tensor) -> Tensor:
    """Logits (B, G) of groups of classes, such that the probability of a group is the sum over its members.

    Args:
        logits_BN: of the classes.
        member_GN: booleans, row g true for the members of group g; every group has one or more.

    Equal logits give ``ln`` of the group's size.
    """
    logits_BN = logits_BN.float() if logits_BN.dtype.itemsize < 4 else logits_BN
    return torch.where(member_GN, logits_BN[:, None, :], -torch.inf).logsumexp(2)
