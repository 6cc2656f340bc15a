"""Signal propagation: labels go forward through the network beside the images, and blocks bring both together.

Paper:
    Kohan, Rietman, Siegelmann 2022, "Signal Propagation: A Framework for Learning and Inference in a Forward Pass",
    arXiv 2204.01723; code amassivek/signalpropagation.

Signal:
    Every label c has an image of its own, t_0(c), and all N of them pass through the blocks together with the batch.
    With h and t(c) the outputs of a block for an image and for a label, before dropout and pool, the block minimises
    ``CE(score(h, t(.)) / T, y)``: a softmax over the labels, in which the image's own is to have the highest score.
    ``--signal_score``: ``h . t`` or ``-|h - t|^2``, each a sum over the channels and a mean over the positions; T is
    ``--signal_temperature``. Both h and t learn, in every block from its own loss alone; the labels' images learn with
    the first block, at a rate of their own (``--signal_rate_scale``), since a mean over all positions leaves little for
    each pixel. The classifier is a layer of its own: it learns by cross-entropy from the last block's detached output,
    and the reported loss of the last block is the sum of both losses.
    The network predicts by its classifier, the third of the ways that the authors name. Exits of earlier blocks take
    the first: the class is the label with the highest score in that block. ``--num_modules 1`` is back-propagation of
    the last block's loss on the signals.

Cost:
    One block's graph at a time. A step computes B + N images in place of B: 1.08 times as many for ten classes and
    batches of 128. There are no heads; the labels' images have ``N C H W`` numbers. Exits at inference take one pass of
    the N labels for a batch; the network's output takes none.

Deviations:
    1. A batch has every label once. The released code passes the label of every image of the batch, so that a label
       occurs as often as it has images, and one of the equal ones, or all of them, is the target.
    2. The labels' images have the shape of the network's images. There the first layer of labels is a module of its
       own, which ends where the first layer of the images does.
    3. BatchNorm's statistics are those of images and labels together. Running statistics too.
    4. All blocks step after the last one. Gradients are the same, because the output handed on is the one from before
       the update.

Reference numbers:
    As later papers quote it, CIFAR-10 test accuracy on networks of VGG's kind: 91.6 to 92.4 %.
    Ours, ``--sigprop --dataset digits --batch_size 32``, one seed, test accuracy after the last epoch: VGGs, 8 epochs
    97.5 % by the classifier, 90.0 and 86.1 % by the nearest signal in the blocks before (``--signal_score distance``
    97.8, 89.7 and 91.7 %; ``--fixed_signals`` 96.9, 11.1 and 58.3 %). BasicCNN, 2 epochs: 92.5, 88.1 and 91.9 %.
    With ``--val_size 300`` and 4 epochs on VGGs, images of labels that learn at the network's own rate
    (``--signal_rate_scale 1``) left these exits at 11.1 and 36.7 %; the default is the best of 30, 100 and 300 there,
    all with ``--signal_score distance``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datamodules.base import LABELLED, Batch, DataSpec
from methods._base import Traits
from methods._local import Hidden, LocalMethod
from model import Backbone
from objectives.signals import distance_scores, dot_scores
from sections.rules.sigprop import SigpropArgs

SIGNALS = "labels"  # names the images that stand for the labels


class LabelImages(nn.Module):
    """An image for every label; at the beginning its pixels are independent and standard normal.

    Args:
        spec: of the images.
        fixed: whether they stay as they are.

    Attributes:
        images_NCHW: in the order of the classes.
    """

    images_NCHW: Tensor

    def __init__(self, spec: DataSpec, fixed: bool) -> None:
        super().__init__()
        drawn_NCHW = torch.randn(spec.num_classes, spec.num_channels, spec.height, spec.width)
        if fixed:
            self.register_buffer("images_NCHW", drawn_NCHW)
        else:
            self.images_NCHW = nn.Parameter(drawn_NCHW)


class SignalPropagation(LocalMethod):
    """Every block classifies by comparing its output for an image with its outputs for the labels' images."""

    TRAITS = Traits(isolation="block")
    SEES = (LABELLED, SIGNALS)
    args: SigpropArgs

    def __init__(self, args: SigpropArgs, backbone: Backbone, spec: DataSpec) -> None:
        super().__init__(args, backbone, spec)
        self.signals = LabelImages(spec, args.fixed_signals)

    def build_heads(self, index: int, spec: DataSpec) -> nn.Module:
        """Nothing: signals come through the network itself."""
        return nn.Identity()

    def block_heads(self, index: int) -> list[nn.Module]:
        """The labels' images learn with the first block."""
        return super().block_heads(index) + ([self.signals] if index == 0 else [])

    def scaled_heads(self, index: int) -> tuple[str, float, list[nn.Module]]:
        """The labels' images, with ``--signal_rate_scale``."""
        learns = index == 0 and not self.args.fixed_signals
        return "signals", self.args.signal_rate_scale, [self.signals] if learns else []

    def prepare(self, batch: Batch) -> Batch:
        """The images, and behind them those of the labels, with the graph in which these learn."""
        return super().prepare(batch).with_images(SIGNALS, self.signals.images_NCHW.to(batch.x_BCHW.dtype))

    def scores(self, h_BCHW: Tensor, t_NCHW: Tensor) -> Tensor:
        """(B, N) of images against labels, over the temperature."""
        score = dot_scores if self.args.signal_score == "dot" else distance_scores
        return score(h_BCHW, t_NCHW) / self.args.signal_temperature

    def block_loss(self, index: int, hidden: Hidden, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the scores, and in the last block that of the classifier on its detached output."""
        count = len(batch.y_B)
        scores_BN = self.scores(hidden.features_BCHW[:count], hidden.features_BCHW[count:])
        loss = self.classification_loss(index, scores_BN, batch.y_B)
        if index < self.last:
            return loss, scores_BN
        logits_BN = self.head(index)(hidden.out_BCHW[:count].detach())
        return loss + self.classification_loss(index, logits_BN, batch.y_B), logits_BN

    def block_logits(self, x_BCHW: Tensor) -> list[Tensor | None]:
        """Scores against the labels' signals, for the last block the classifier's logits."""
        logits: list[Tensor | None] = [None] * self.backbone.num_blocks
        # By themselves, so that the images are computed as in the backbone alone, to the bit.
        signals = [hidden.features_BCHW for _, hidden in self._run(self.signals.images_NCHW.detach().to(x_BCHW.dtype))]
        for index, hidden in self._run(x_BCHW):
            if index in self.phases.blocks:
                is_last = index == self.last
                logits[index] = (
                    self.head(index)(hidden.out_BCHW) if is_last else self.scores(hidden.features_BCHW, signals[index])
                )
        return logits
