"""Information propagation: early modules keep the image, late ones separate the classes.

Paper:
    Wang, Ni, Song, Yang, Huang 2021, "Revisiting Locally Supervised Learning: an Alternative to End-to-end Training",
    arXiv 2101.10832; code blackfeather-wang/InfoPro-Pytorch.

Signal:
    Block i minimises ``a_i r_i + b_i l_i``. r_i is the binary cross-entropy between the pixels, brought back to
    [0, 1], and what a decoder draws from the block's output before its pool; l_i is cross-entropy of the block's head,
    or with ``--label_loss contrast`` SupCon of the vectors that the head gives, on one view of each image. Both weights
    go linearly from ``--reconstruction_weight_first`` and ``--label_weight_first`` at the first trained block to
    ``..._last`` at the one before the last, which has the classifier. Where a weight is 0 there is no head for it.
    The paper's modules are ``--num_modules`` or ``--module_ends``. Reconstruction weights of 0, label weights of 1 and
    softmax are dgl.

Cost:
    One block's graph at a time. The decoder's maps have the image's size, 12 channels wide.

Deviations:
    1. The head reads the block's output behind its pool, as dgl's; theirs has no pools.
    2. The 1c2f head goes by the size of the map, theirs by the stage of the ResNet (by its channels). On their ResNets
       and images of 32x32 pixels both are the same; on larger images the third stage differs (`heads.classifiers`).
    3. Our ResNets have shortcuts without parameters, and crops are padded with zeros; theirs have 1x1 convolutions and
       reflections. Random erasing and crops are part of what the decoder is to draw, as theirs are.
    4. No one setting was published for all networks; the defaults are theirs for ResNet-32 in 16 modules.
    5. Both weights are linear in depth with ``--man`` as well, where MAN's authors go by stage (`heads.momentum`).

Reference numbers:
    blackfeather-wang/InfoPro-Pytorch, CIFAR-10 test error, 160 epochs, contrast, mean of 5: ResNet-32 (back-propagation
    7.37 %) in 2, 4, 8, 16 modules 7.76, 8.58, 11.13, 12.75 %; softmax 8.13, 8.64, 11.40, 14.23 %; DGL 8.69, 11.48,
    14.17, 16.21 %. ResNet-110 (6.50 %), contrast: 6.42, 7.30, 8.93, 9.90 %.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from consts import PRED_LOSS
from datamodules.base import LABELLED, Batch, DataSpec
from heads.build import build_classifier
from heads.decoder import small_decoder
from heads.projection import NUM_EMBEDDED
from methods._base import Traits
from methods._local import Hidden, LocalMethod
from model import Backbone, Shape
from objectives.contrastive import supervised_contrastive
from objectives.reconstruction import pixel_cross_entropy
from sections.rules.infopro import InfoproArgs
from tasks._base import Task

RECONSTRUCTION = "reconstruction"  # names its loss


class PixelReconstruction(Task):
    """Give back the augmented image in [0, 1]."""

    mean_C11: Tensor
    std_C11: Tensor

    def __init__(self, args: InfoproArgs, backbone: Backbone, spec: DataSpec, blocks: Iterable[int]) -> None:
        super().__init__(args, backbone, spec, blocks)
        for name, values in (("mean_C11", spec.mean), ("std_C11", spec.std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def build_head(self, shape: Shape) -> nn.Module:
        """A decoder that ends in logits."""
        return small_decoder(shape, self.image)

    def loss(self, index: int, features_BCHW: Tensor, batch: Batch) -> Tensor:
        """Binary cross-entropy of the pixels; images that a task appended are left out."""
        drawn_BCHW = self.head(index)(batch.part(features_BCHW, LABELLED))
        image_BCHW = batch.part(batch.x_BCHW, LABELLED)
        pixels_BCHW = (image_BCHW * self.std_C11 + self.mean_C11).clamp(0, 1)  # rounding may leave the interval
        return pixel_cross_entropy(drawn_BCHW, pixels_BCHW)

    def pictures(self, index: int, features_BCHW: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The image and what the decoder draws, both normalised."""
        pixels_BCHW = self.head(index)(batch.part(features_BCHW, LABELLED)).sigmoid()
        return batch.part(batch.x_BCHW, LABELLED), (pixels_BCHW - self.mean_C11) / self.std_C11


class InfoPro(LocalMethod):
    """Pixels and labels, weighted by depth."""

    TRAITS = Traits(isolation="block")
    args: InfoproArgs

    def build_tasks(self, spec: DataSpec, inner: range) -> None:
        """The family's, and the decoders where their weight is not 0."""
        super().build_tasks(spec, inner)
        drawn = [index for index in inner if self.weight(RECONSTRUCTION, index) > 0]
        if drawn:
            self.add_module(RECONSTRUCTION, PixelReconstruction(self.args, self.backbone, spec, drawn))

    def weight(self, name: str, index: int) -> float:
        """Linear in depth for pixels and labels; the last of these blocks is the one before the classifier's."""
        depth = (index - self.first_trainable) / max(self.last - 1 - self.first_trainable, 1)
        args = self.args
        if name == RECONSTRUCTION:
            return args.reconstruction_weight_first * (1 - depth) + args.reconstruction_weight_last * depth
        own = args.label_weight_first * (1 - depth) + args.label_weight_last * depth
        return super().weight(name, index) * (own if name == PRED_LOSS else 1)

    def build_heads(self, index: int, spec: DataSpec) -> nn.Module:
        """A head of the kind that ``--pred_aux_type`` names, with logits or with vectors to compare."""
        num_outputs = NUM_EMBEDDED if self.args.label_loss == "contrast" else spec.num_classes
        return build_classifier(self.args, self.backbone, index, self.backbone.out_shapes[index], num_outputs)

    def exit_logits(self, index: int, hidden: Hidden) -> Tensor | None:
        """Logits of block ``index``; None where its head gives vectors."""
        return super().exit_logits(index, hidden) if index == self.last or self.args.label_loss == "softmax" else None

    def block_loss(self, index: int, hidden: Hidden, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The label's term."""
        out = self.head(index)(hidden.out_BCHW)
        if index < self.last and self.args.label_loss == "contrast":
            labels_B, _ = self.labels(index, batch.y_B)
            return supervised_contrastive(out, labels_B, self.args.contrast_temperature), None
        return self.classification_loss(index, out, batch.y_B), out
