"""Goodness: how active a layer is on an image, and losses that compare it on right and wrong labels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def goodness(h_BCHW: Tensor) -> Tensor:
    """The sum of squares over the channels, mean over the positions of a map, (B,); in float32 or wider.

    On a map of one position it is the squared length of the layer's output. A map of ones gives C.
    """
    h_BCHW = h_BCHW.float() if h_BCHW.dtype.itemsize < 4 else h_BCHW
    return h_BCHW.square().sum(1).flatten(1).mean(1)


def forward_forward(right_B: Tensor, wrong_B: Tensor, threshold: float) -> Tensor:
    """``softplus(threshold - G) + softplus(G' - threshold)``, mean over the B pairs; ``2 ln 2`` where both are at it.

    G is the goodness with the right label, G' with a wrong one. The gradient at the output h of a layer with one
    position is ``-2 h sigmoid(threshold - G) / B`` for the one, ``2 h sigmoid(G' - threshold) / B`` for the other.
    """
    return (F.softplus(threshold - right_B) + F.softplus(wrong_B - threshold)).mean()


def symba(right_B: Tensor, wrong_B: Tensor, alpha: float) -> Tensor:
    """``softplus(-alpha (G - G'))``, mean over the B pairs; ``ln 2`` where both are equal."""
    return F.softplus(alpha * (wrong_B - right_B)).mean()
