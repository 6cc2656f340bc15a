"""Forward-forward: every block is to be active on images that show the right label, and not on those with a wrong one.

Paper:
    Hinton 2022, "The Forward-Forward Algorithm: Some Preliminary Investigations", arXiv 2212.13345. ``--goodness_loss
    symba``: Lee, Song 2023, "SymBa: Symmetric Backpropagation-Free Contrastive Learning with Forward-Forward Algorithm
    for Optimizing Convergence", arXiv 2303.08418.

Signal:
    G is the goodness of a block's output before dropout and pool: the sum of squares over the channels, mean over the
    positions. Every image is seen with its label (G) and with a wrong one (G'), drawn anew at each step. A block
    minimises ``softplus(t C - G) + softplus(G' - t C)``, with C its channels and t ``--goodness_threshold``, or with
    ``symba`` ``softplus(-a (G - G'))``, a being ``--goodness_alpha``; both are means over the B images of a batch. What
    it hands on is scaled to a mean square of 1, image by image, so that the next block cannot tell G from it.
    No gradient comes from another block. The network has no classifier: the class of an image is the label with which
    the blocks from ``--first_scored_block`` on have the largest sum of G. Exit i is that sum up to block i, or the G of
    an earlier block alone; ``test/loss`` is the cross-entropy of these sums, taken for logits.
    ``--num_modules 1`` is back-propagation of the last block's loss; with ``--overlap 1`` a loss also trains the block
    below, as in Trifecta (arXiv 2311.18130).

Cost:
    Training takes two forward and two backward passes for an image, one block's graph at a time. Inference takes as
    many forward passes as there are classes, also where it is exported; so training reports no accuracy.

Deviations:
    1. G is a mean over positions; the paper sums all units, of layers that share no weights. Where a map has one
       position they are the same. A known reimplementation takes the mean over all units.
    2. The label is written by the rule, into the augmented image. Before, crops and flips would move it away.
    3. The label has by default a channel of its own (``--label_in channel``), where its code is repeated over the
       plane: shared kernels find it better than in the first pixels (``image``, as in the paper). There it is white
       among black in all colours.
    4. BatchNorm's statistics are those of right and wrong labels together. Of each kind alone they would make the mean
       goodness of both equal. The paper's layers have none.
    5. Wrong labels are drawn evenly, and the softmax that classifies in one pass is left out.
    6. Blocks train at the same time, on batches; the reimplementation trains one after the other, ``--sequential``.

Reference numbers:
    As a later paper's table quotes them, CIFAR-10 test accuracy: 59.00 %, with symba 59.09 %, Trifecta 83.51 %.
    Ours, digits, VGGs, 8 epochs of batches of 32, one seed, test accuracy after the last: 60.8 %, with symba 66.9 %.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from datamodules.base import LABELLED, Batch, DataSpec
from methods._base import Traits
from methods._label import Label, UnitLength, widen
from methods._local import Hidden, LocalMethod
from model import Backbone, Block
from objectives.goodness import forward_forward, goodness, symba
from sections.rules.ff import FfArgs

WRONG = "wrong label"  # names the images that show one


class LabelledBackbone(Backbone):
    """Blocks that see an image once with every label; the goodness of the labels takes the place of logits.

    Args:
        blocks: in order; what each hands on is of unit length.
        label: how labels are shown.
        first_scored: the first block whose goodness counts.
    """

    def __init__(self, blocks: Sequence[Block], label: Label, first_scored: int) -> None:
        super().__init__(blocks, nn.Identity())
        self.label, self.first_scored = label, min(first_scored, len(blocks) - 1)

    def scores(self, x_BCHW: Tensor, num_blocks: int) -> list[Tensor]:
        """(B, N) goodness of every label by block, that of the scored blocks up to it added up; N passes."""
        passes = []
        for number in range(self.label.num_classes):
            sums: list[Tensor] = []
            h_BCHW = self.label(x_BCHW, torch.full_like(x_BCHW[:, 0, 0, 0], number, dtype=torch.int64))
            for index in range(num_blocks):
                block = self.block(index)
                features_BCHW = block.features(h_BCHW)
                h_BCHW = block.pool(block.dropout(features_BCHW))
                own_B = goodness(features_BCHW)
                sums.append(sums[-1] + own_B if index > self.first_scored else own_B)
            passes.append(torch.stack(sums))
        return [*torch.stack(passes, 2)]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, N) scores of the classes, in place of logits."""
        return self.scores(x_BCHW, self.num_blocks)[-1]


class ForwardForward(LocalMethod):
    """Goodness of every block, on right and on wrong labels."""

    TRAITS = Traits(isolation="block", logits_in_training=False)
    SEES = (LABELLED, WRONG)
    args: FfArgs
    backbone: LabelledBackbone

    def arrange(self, backbone: Backbone, spec: DataSpec) -> Backbone:
        """The blocks without a classifier; unit length behind each, and in the first a channel for the label."""
        args, joined = self.args, super().arrange(backbone, spec)
        blocks, in_channel = [joined.block(index) for index in range(joined.num_blocks)], args.label_in == "channel"
        if in_channel:
            widen(next(block for block in blocks if [*block.parameters()]), spec.num_channels)
        for block in blocks:
            block.pool = nn.Sequential(block.pool, UnitLength())
        return LabelledBackbone(blocks, Label(spec, in_channel), max(args.first_scored_block, self.first_trainable))

    def build_heads(self, index: int, spec: DataSpec) -> nn.Module:
        """Nothing: goodness has no parameters."""
        return nn.Identity()

    def prepare(self, batch: Batch) -> Batch:
        """The images with their labels, and again with another one each, all wrong ones equally likely."""
        y_B, count = batch.y_B, self.num_classes - 1
        offset_B = batch.rows_of_step(
            lambda size: torch.randint(count, (size,), device=y_B.device, generator=batch.generator)
        )
        right_BCHW, wrong_BCHW = (
            self.backbone.label(batch.x_BCHW, label_B) for label_B in (y_B, (y_B + 1 + offset_B) % self.num_classes)
        )
        return batch._replace(x_BCHW=right_BCHW).with_images(WRONG, wrong_BCHW)

    def block_loss(self, index: int, hidden: Hidden, batch: Batch) -> tuple[Tensor, None]:
        """The loss on the goodness before dropout and pool; there are no logits, which take a pass for every class."""
        right_B, wrong_B = goodness(hidden.features_BCHW).chunk(2)
        if self.args.goodness_loss == "symba":
            return symba(right_B, wrong_B, self.args.goodness_alpha), None
        threshold = self.args.goodness_threshold * hidden.features_BCHW.shape[1]
        return forward_forward(right_B, wrong_B, threshold), None

    def block_logits(self, x_BCHW: Tensor) -> list[Tensor | None]:
        """The scores at every exit, as of a network that ends there."""
        scores = self.backbone.scores(x_BCHW, self.phases.learning.stop)
        known = [score if index in self.phases.blocks else None for index, score in enumerate(scores)]
        return known + [None] * (self.backbone.num_blocks - len(known))
