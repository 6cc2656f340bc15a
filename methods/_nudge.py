"""Rules that nudge an equilibrium by the loss: with which signs of beta."""

from __future__ import annotations

import torch

from datamodules.base import Batch
from sections.relaxation import Nudge

Beta = float | torch.Tensor  # a tensor where its sign is drawn


def betas(settings: Nudge, batch: Batch) -> list[tuple[Beta, float]]:
    """The betas with which a batch is nudged, as ``--nudging`` says, and the weight of each in its gradient."""
    beta = settings.nudge
    if settings.nudging == "centred":
        return [(beta, 0.5), (-beta, 0.5)]
    if settings.nudging == "one_sided":
        return [(beta, 1.0)]
    x_BCHW = batch.x_BCHW
    drawn = torch.randint(2, (), generator=batch.generator, device=x_BCHW.device)
    return [(beta * (2 * drawn - 1).to(x_BCHW.dtype), 1.0)]
