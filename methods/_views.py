"""Contrast of views: every block but the last also learns which two images are augmentations of one.

Paper:
    Chen, Kornblith, Norouzi, Hinton 2020, "A Simple Framework for Contrastive Learning of Visual Representations"
    (SimCLR), arXiv 2002.05709; as a local loss of overlapping stages: Xiong, Ren, Urtasun 2020 (LoCo), arXiv
    2008.01342.

Signal:
    Block i minimises ``l_i + v n_i``, where l_i is what it learns without this option, v ``--simclr_loss_weight``, and
    n_i the loss `objectives.contrastive.simclr` of projections of its output before the pool, with
    ``--simclr_temperature``. The second views stand behind the labelled images and serve this loss alone. It is
    another weight in the sum of ``--ssl``, so ``--ssl --pred_loss_weight 0 --ssl_loss_weight 0 --simclr_loss_weight 1``
    is contrast of views alone, without labels.

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

from consts import block_name
from datamodules.base import Batch
from heads.projection import projection
from layers.rows import rows
from methods._ssl import SslTask, appended
from model import Shape
from objectives.contrastive import simclr


class ViewContrast(SslTask):
    """Two views of an image shall have like projections, unlike those of all other images."""

    def build_head(self, shape: Shape) -> nn.Module:
        """A projection."""
        return projection(shape)

    def prepare(self, batch: Batch) -> Batch:
        """Append the second views. It must be the first task to append; images to look at have none."""
        return batch if batch.second_BCHW is None else appended(batch, batch.second_BCHW)

    def loss(self, index: int, features_BCHW: Tensor, batch: Batch) -> Tensor:
        """NT-Xent of both views.

        Raises:
            ValueError: the batch has one view only.
        """
        if batch.second_BCHW is None:
            raise ValueError("SimCLR's loss needs a second view of every image; a Feed gives it with two_views")
        z_VD = self.heads[block_name(index)](rows(features_BCHW, 0, 2 * batch.y_B.shape[0]))
        return simclr(z_VD, self.args.simclr_temperature)
