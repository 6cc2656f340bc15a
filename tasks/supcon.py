"""Supervised contrast: every block but the last also learns which images share a label.

Paper:
    Khosla et al. 2020, "Supervised Contrastive Learning", arXiv 2004.11362; as a local loss: InfoPro, arXiv 2101.10832.

Signal:
    s_i is the loss `objectives.contrastive.supervised_contrastive` of a projection of the block's output before its
    pool, with ``--contrast_temperature``, over the labelled images. ``--ssl --pred_loss_weight 0 --ssl_loss_weight 0
    --supcon_loss_weight 1`` is contrast alone.

Cost:
    A head of two linear layers for each block, and batch x batch numbers.

Deviations:
    1. One view of each image, as in InfoPro; the paper has two, each a positive of the other.
    2. Local and together with the other losses; the paper trains end to end, then a linear classifier.
    3. The average runs over all images of a batch. Those that are alone with their label count as 0, so small batches
       with many classes give a small loss.

Reference numbers:
    HobbitLong/SupContrast, ResNet-50, CIFAR-10 test accuracy, end to end: cross-entropy 95.0 %, SupCon 96.0 %.
"""

from __future__ import annotations

from torch import Tensor, nn

from datamodules.base import LABELLED, Batch
from heads.projection import projection
from model import Shape
from objectives.contrastive import supervised_contrastive
from sections.tasks.supcon import SupconArgs
from tasks._base import Task


class SupervisedContrast(Task):
    """Pull images of one label together in projection space. Images without labels are left out."""

    def build_head(self, shape: Shape) -> nn.Module:
        """A projection."""
        return projection(shape)

    def loss(self, index: int, features_BCHW: Tensor, batch: Batch) -> Tensor:
        """SupCon among the labelled images."""
        z_BD = self.head(index)(batch.part(features_BCHW, LABELLED))
        return supervised_contrastive(z_BD, batch.y_B, self.args.group(SupconArgs).contrast_temperature)
