"""One-hot encoding of class labels."""

from __future__ import annotations

import torch
from torch import Tensor


def one_hot(y_B: Tensor, num_classes: int) -> Tensor:
    """Booleans of shape (B, ``num_classes``), true at each label.

    torch's `one_hot` reads the labels' range on the host when they are on a CPU, and imports torch's compiler.
    """
    return y_B[:, None] == torch.arange(num_classes, device=y_B.device)
