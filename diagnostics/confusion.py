"""Confusion matrix of a network's predictions."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.feed import Feed
from methods._base import Method


def confusion_matrix(method: Method, feed: Feed) -> Tensor:
    """Counts (N, N) of int64 over all images of a feed: rows are labels, columns predictions.

    torchmetrics' `MulticlassConfusionMatrix` gives the same counts, but would be a second way to transfer results from
    the device.
    """
    num_classes = feed.spec.num_classes
    method.eval()
    counts = []
    with torch.inference_mode():
        for step in range(feed.num_steps):
            batch = feed.batch(0, step)
            pairs_B = batch.y_B * num_classes + method(batch.x_BCHW).argmax(1)
            counts.append(torch.bincount(pairs_B, minlength=num_classes**2))
    method.train()
    return torch.stack(counts).sum(0).view(num_classes, num_classes).cpu()
