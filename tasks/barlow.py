"""Barlow Twins: every block but the last also learns uncorrelated features that two views share.

Paper:
    Zbontar, Jing, Misra, LeCun, Deny 2021, "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", arXiv
    2103.03230; as a local loss of the four stages of a ResNet-50: Siddiqui, Krueger, LeCun, Deny 2023, "Blockwise
    Self-Supervised Learning at Scale", arXiv 2302.01647.

Signal:
    With z and z' the projections of the block's output before its pool, for two augmentations of the labelled images,
    each number standardised over the batch, ``C = z^T z' / B`` and
    ``s_i = sum_j (1 - C_jj)^2 + r sum_{j != k} C_jk^2``, with r ``--barlow_redundancy_weight``.

Cost:
    Twice the images, a head of two linear layers for each block, and 128 x 128 numbers.

Deviations:
    1. Views differ by the run's own augmentations, drawn twice; the papers also distort colours and crop more.
    2. The projection is that of the other contrastive tasks: 128 numbers behind one hidden layer without BatchNorm; the
       papers have 8192 behind two layers with it. The loss is a sum over the numbers, so its size goes with theirs.
    3. Local, and together with other losses, in every block; the second paper has four stages, and adds noise between.

Reference numbers:
    Blockwise, ResNet-50 in its four stages, ImageNet, linear classifier: 70.48 %, end to end 71.57 %.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datamodules.base import LABELLED, SECOND_VIEW, Batch
from heads.projection import projection
from model import Shape
from sections.tasks.barlow import BarlowArgs
from tasks._base import Task

EPSILON = 1e-5  # added to the variances, as in the authors' BatchNorm


def barlow_twins(first_BD: Tensor, second_BD: Tensor, redundancy_weight: float) -> Tensor:
    """The loss above, in float32 or wider whatever the type of the views.

    Two equal views of numbers without correlation give 0, equal projections of all images D, the count of numbers.
    """
    with torch.autocast(first_BD.device.type, enabled=False):  # autocast would multiply in half precision
        one_BD, other_BD = (_standardised(view_BD) for view_BD in (first_BD, second_BD))
        correlation_DD = one_BD.T @ other_BD / len(one_BD)
        diagonal_D = correlation_DD.diagonal()
        redundancy = correlation_DD.square().sum() - diagonal_D.square().sum()
        return (1 - diagonal_D).square().sum() + redundancy_weight * redundancy


def _standardised(z_BD: Tensor) -> Tensor:
    z_BD = z_BD.float() if z_BD.dtype.itemsize < 4 else z_BD
    variance_D, mean_D = torch.var_mean(z_BD, 0, correction=0)
    return (z_BD - mean_D) * (variance_D + EPSILON).rsqrt()


class BarlowTwins(Task):
    """Make numbers agree between two views and differ from each other."""

    def build_head(self, shape: Shape) -> nn.Module:
        """A projection."""
        return projection(shape)

    def loss(self, index: int, features_BCHW: Tensor, batch: Batch) -> Tensor:
        """Barlow Twins of both views.

        Raises:
            ValueError: the batch has one view only.
        """
        z_VD = self.head(index)(batch.part(features_BCHW, LABELLED, SECOND_VIEW))
        first_BD, second_BD = z_VD.chunk(2)
        return barlow_twins(first_BD, second_BD, self.args.group(BarlowArgs).barlow_redundancy_weight)
