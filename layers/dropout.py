"""Dropout whose mask is a function of a key, so that it does not depend on what other blocks have drawn."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Dropout(nn.Module):
    """Dropout whose mask depends on a key alone, where it has one.

    torch's own draws from the one generator of the process, whose state depends on what other blocks have drawn.

    Attributes:
        key: of the current step; None for torch's generator.
        generators: of a step's first forward pass, its second one and so on, each seeded with the key; kept, since a
            CUDA graph goes on drawing from those that it was captured with.
    """

    def __init__(self, prob: float) -> None:
        super().__init__()
        self.prob = prob
        self.generators: list[torch.Generator] = []
        self.key: int | None = None
        self._num_passes = 0

    def set_key(self, key: int) -> None:
        """Let every mask until the next call be that of ``key``, below 2^63; to be called before a training step."""
        self.key, self._num_passes = key, 0
        for generator in self.generators:
            generator.manual_seed(key)

    def forward(self, x: Tensor) -> Tensor:
        """Set values to zero with probability ``prob`` and scale the others by ``1 / (1 - prob)``; only in training."""
        if not self.training or self.key is None:
            return F.dropout(x, self.prob, self.training)
        if self._num_passes == len(self.generators):
            self.generators.append(torch.Generator(x.device).manual_seed(self.key))
        generator = self.generators[self._num_passes]
        self._num_passes += 1
        drawn = torch.rand(x.shape, generator=generator, device=x.device)
        # In the map's own memory order, whatever order was drawn in; the result of `masked_fill` would be contiguous.
        dropped = torch.lt(drawn, self.prob, out=torch.empty_like(x, dtype=torch.bool))
        return torch.where(dropped, 0, x) / (1 - self.prob)
