"""Contrast of views: every block but the last also learns which two images are augmentations of one.

Paper:
    Chen, Kornblith, Norouzi, Hinton 2020, "A Simple Framework for Contrastive Learning of Visual Representations"
    (SimCLR), arXiv 2002.05709; as a local loss of overlapping stages: Xiong, Ren, Urtasun 2020 (LoCo), arXiv
    2008.01342.

Signal:
    s_i is the loss `objectives.contrastive.simclr` of projections of the block's output before its pool, with
    ``--simclr_temperature``, over both augmentations of the labelled images. The second ones serve tasks alone.
    ``--ssl --pred_loss_weight 0 --ssl_loss_weight 0 --simclr_loss_weight 1`` is contrast of views alone.

Cost:
    Twice the images, a head of two linear layers for each block, and 4 x batch x batch numbers.

Deviations:
    1. Views differ by the run's own augmentations, drawn twice: crops, flips, erased rectangles. The paper's crops are
       of 8 to 100 % of the area, and its colours are distorted, without which it finds much worse features.
    2. Local, and together with other losses; the paper trains end to end, then a linear classifier (``evaluate RUN
       --linear``).
    3. The head's hidden layer is as wide as the block, theirs as the whole network's output.

Reference numbers:
    HobbitLong/SupContrast, ResNet-50, CIFAR-10 test accuracy, end to end, 1000 epochs, linear classifier: SimCLR
    93.6 %, SupCon 96.0 %, cross-entropy 95.0 %.
"""

from __future__ import annotations

from torch import Tensor, nn

from datamodules.base import LABELLED, SECOND_VIEW, Batch
from heads.projection import projection
from model import Shape
from objectives.contrastive import simclr
from sections.tasks.simclr import SimclrArgs
from tasks._base import Task


class ViewContrast(Task):
    """Pull two views of one image together in projection space, and apart from all other images."""

    def build_head(self, shape: Shape) -> nn.Module:
        """A projection."""
        return projection(shape)

    def loss(self, index: int, features_BCHW: Tensor, batch: Batch) -> Tensor:
        """NT-Xent of both views.

        Raises:
            ValueError: the batch has one view only.
        """
        z_VD = self.head(index)(batch.part(features_BCHW, LABELLED, SECOND_VIEW))
        return simclr(z_VD, self.args.group(SimclrArgs).simclr_temperature)
