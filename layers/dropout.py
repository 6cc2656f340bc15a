"""Dropout whose mask is a function of a key, so that it does not depend on what other blocks have drawn."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Dropout(nn.Module):
    """Dropout whose mask depends on a key alone, where it has one.

    torch's own draws from the one generator of the process, whose state depends on what other blocks have drawn.

    Attributes:
        key: below 2^63, set before every training step; None for torch's generator.
    """

    def __init__(self, prob: float) -> None:
        super().__init__()
        self.prob = prob
        self.key: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Set values to zero with probability ``prob`` and scale the others by ``1 / (1 - prob)``; only in training."""
        if not self.training or self.key is None:
            return F.dropout(x, self.prob, self.training)
        generator = torch.Generator(x.device).manual_seed(self.key)
        drawn = torch.rand(x.shape, generator=generator, device=x.device)
        return x.masked_fill(drawn < self.prob, 0) / (1 - self.prob)
