"""Accuracy and loss of every block on a split."""

from __future__ import annotations

import torch

from datamodules.feed import Feed
from engine.devices import autocast
from engine.meter import Meter, Totals
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
