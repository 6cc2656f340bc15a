"""A curriculum: the images that another network finds easy (or hard) first, then more and more of them, at last all.

After Bakhtiarnia, Zhang, Iosifidis 2021, "Improving the Accuracy of Early Exits in Multi-Exit Architectures via
Curriculum Learning", arXiv 2104.10461: images sorted by how hard they are, and a pacing function that says how many may
be drawn. The teacher is a run that has ended, and an image is as hard as the loss of its network on it. Classes are not
balanced: an early epoch can hold many images of one class.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.augment import generator


class Curriculum(NamedTuple):
    """Which images an epoch may draw.

    Attributes:
        ranking_P: positions of all training images (int64, CPU), those that are let in first in front.
        start: share of them in the first epoch, above 0.
        num_epochs: after how many epochs all are let in, above 0.
    """

    ranking_P: Tensor
    start: float
    num_epochs: float

    def share(self, epoch: int) -> float:
        """Share of the images that ``epoch`` (from 0) may draw, at most 1; it grows linearly."""
        return min(1.0, self.start + (1 - self.start) * epoch / self.num_epochs)

    def order(self, seed: int, epoch: int) -> Tensor:
        """As many positions as there are images: those let in, all of them in a new order before one comes again.

        A function of the arguments alone. With all images let in it is `datamodules.feed.epoch_order`.
        """
        num_images = len(self.ranking_P)
        count = max(1, round(self.share(epoch) * num_images))
        open_P, source = self.ranking_P[:count].sort().values, generator(seed, epoch, "order")
        passes = [open_P[torch.randperm(count, generator=source)] for _ in range(-(-num_images // count))]
        return torch.cat(passes)[:num_images]
