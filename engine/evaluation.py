"""Per-block loss and accuracy on a split."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from datamodules.feed import Feed
from engine.devices import autocast
from engine.loop.meter import Meter, Totals
from methods._base import Method, StepOutput
from objectives.classification import cross_entropy


def evaluate(method: Method, feed: Feed, precision: str) -> Totals:
    """Run ``method`` in evaluation mode over a whole split, and leave it in training mode.

    Losses are plain cross-entropies whatever a block was trained on, so that methods can be compared.
    """
    method.eval()
    meter = Meter()
    with torch.inference_mode():
        for step in range(feed.num_steps):
            batch = feed.batch(0, step)
            with autocast(batch.x_BCHW.device, precision):
                logits = method.block_logits(batch.x_BCHW)
            losses = [None if out_BN is None else cross_entropy(out_BN, batch.y_B) for out_BN in logits]
            meter.add(StepOutput(logits, losses), batch.y_B)
    method.train()
    return meter.read()


def exit_logits(method: Method, feed: Feed, exits: Sequence[int], precision: str) -> tuple[Tensor, Tensor]:
    """Logits (E, P, N) of the blocks ``exits`` and labels (P,), on the CPU; ``method`` is left in training mode."""
    method.eval()
    parts, labels = [], []
    with torch.inference_mode():
        for step in range(feed.num_steps):
            batch = feed.batch(0, step)
            with autocast(batch.x_BCHW.device, precision):
                logits = method.block_logits(batch.x_BCHW)
            parts.append(torch.stack([part for index in exits if (part := logits[index]) is not None]).float())
            labels.append(batch.y_B)
    method.train()
    return torch.cat(parts, 1).cpu(), torch.cat(labels).cpu()
