"""Self-supervised tasks of local methods: a second objective and a second head for every block but the last.

Paper:
    AlonNT/Thesis (reconstruction, commits a5661df to 73de555); Gidaris, Singh, Komodakis 2018, "Unsupervised
    Representation Learning by Predicting Image Rotations", arXiv 1803.07728.

Signal:
    Block i minimises ``a l_i + b s_i``, where l_i is the method's own loss, a ``--pred_loss_weight``, b
    ``--ssl_loss_weight``, and s_i the loss of a head on the block's output before its pool. ``reconstruct``: mean
    absolute error of a decoder that gives back the augmented image. ``shift``: the same for the image rolled down and
    to the right, by a shift that grows linearly over the blocks from 5 pixels to half the image. ``rotate``:
    cross-entropy of a classifier that tells by how many quarter turns an image was turned. ``inpaint`` and
    ``colourise`` have a section of their own. The last block learns from its classifier alone; a = 0 trains the others
    without labels.

Cost:
    One head more for each block. ``rotate`` doubles the images: the labelled ones stay upright, and copies of them,
    copy b turned by b mod 4 quarters, follow for the task alone.

Deviations:
    1. The weights are those given, also where one is zero; the thesis ignored b for a = 0.
    2. Shifts are spread over the blocks, theirs over blocks and pools.
    3. Targets of a smaller head are averages over areas, theirs bilinear samples.
    4. No bias where a BatchNorm follows, and no unused decoder on the last block.
    5. ``--upsample_type bilinear`` and rotations are open questions of the thesis, not run there. Turned copies enter
       the statistics of BatchNorm together with the upright images.

Reference numbers:
    AlonNT/Thesis, VGG11c, CIFAR-10 test accuracy, best of 1500 epochs: dgl 91.2 %; 0.5 / 0.5 with reconstruction
    91.0 %, shifted 90.1 %; reconstruction alone 84.4 %, shifted 81.7 %; only the last block trained, on random ones
    73.3 %.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from consts import block_name
from datamodules.base import Batch, DataSpec
from heads.classifiers import CLASSIFIERS
from heads.decoder import decoder
from methods._records import leading, trailing
from model import Backbone, Shape
from objectives.classification import cross_entropy
from objectives.reconstruction import reconstruction_loss, reconstruction_target, shift_schedule
from schemas import LocalArgs
from utils import UsageError


class SslTask(nn.Module, ABC):
    """One task for all of ``blocks``, with a head for each; the heads read the block's output before its pool."""

    def __init__(self, args: LocalArgs, backbone: Backbone, spec: DataSpec, blocks: Iterable[int]) -> None:
        super().__init__()
        self.args, self.num_blocks = args, backbone.num_blocks
        self.image = Shape(spec.num_channels, spec.height, spec.width)
        self.heads = nn.ModuleDict({block_name(i): self.build_head(backbone.block(i).features_shape) for i in blocks})

    @abstractmethod
    def build_head(self, shape: Shape) -> nn.Module:
        """The head on an output of ``shape``."""

    def prepare(self, batch: Batch) -> Batch:
        """The batch that the blocks see. Images beyond the B labels are for the task alone."""
        return batch

    @abstractmethod
    def loss(self, index: int, features_BCHW: Tensor, batch: Batch) -> Tensor:
        """The task's loss on the output of block ``index`` for a prepared batch."""

    def pictures(self, index: int, features_BCHW: Tensor, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """What the head was to draw and what it drew, (B, C, H, W) each, normalised; None where it draws nothing."""
        return None


def appended(batch: Batch, more_BCHW: Tensor) -> Batch:
    """The batch with further images behind those that it has; the last to append finds its own at the end."""
    return batch._replace(x_BCHW=torch.cat((batch.x_BCHW, more_BCHW)))


class Reconstruction(SslTask):
    """Give back the augmented image, or with ``--ssl_task shift`` the image rolled further from block to block."""

    def __init__(self, args: LocalArgs, backbone: Backbone, spec: DataSpec, blocks: Iterable[int]) -> None:
        super().__init__(args, backbone, spec, blocks)
        shifted, side = args.ssl_task == "shift", min(spec.height, spec.width)
        self.shifts = shift_schedule(self.num_blocks, side) if shifted else [0] * self.num_blocks

    def build_head(self, shape: Shape) -> nn.Module:
        """A decoder."""
        return decoder(shape, self.image, self.args.upsample_type if self.args.upsample else None)

    def pictures(self, index: int, features_BCHW: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Target and reconstruction."""
        drawn_BCHW = self.heads[block_name(index)](leading(features_BCHW, batch))
        height, width = drawn_BCHW.shape[2:]
        return reconstruction_target(leading(batch.x_BCHW, batch), height, width, self.shifts[index]), drawn_BCHW

    def loss(self, index: int, features_BCHW: Tensor, batch: Batch) -> Tensor:
        """Mean absolute error."""
        target_BCHW, drawn_BCHW = self.pictures(index, features_BCHW, batch)
        return reconstruction_loss(drawn_BCHW, target_BCHW)


class Rotation(SslTask):
    """Tell by how many quarter turns an image was rotated (Gidaris, Singh, Komodakis 2018, arXiv 1803.07728).

    The labelled images stay upright. Behind them the blocks see the same images again, image b turned by b mod 4
    quarters: every turn equally often, and no random number is drawn.
    """

    NUM_TURNS = 4

    def __init__(self, args: LocalArgs, backbone: Backbone, spec: DataSpec, blocks: Iterable[int]) -> None:
        if spec.height != spec.width:
            raise UsageError(
                f"--ssl_task rotate turns images by 90 degrees, so they must be square, but these are "
                f"{spec.height}x{spec.width}; use --ssl_task reconstruct"
            )
        super().__init__(args, backbone, spec, blocks)

    def build_head(self, shape: Shape) -> nn.Module:
        """A classifier of the kind that ``--pred_aux_type`` names."""
        args = self.args
        build = CLASSIFIERS[args.pred_aux_type]
        return build(shape, self.NUM_TURNS, args.aux_mlp_n_hidden_layers, args.aux_mlp_hidden_dim)

    def prepare(self, batch: Batch) -> Batch:
        """Append the turned images."""
        upright_BCHW = leading(batch.x_BCHW, batch)
        turned_BCHW = upright_BCHW.clone()
        for turns in range(1, self.NUM_TURNS):
            turned_BCHW[turns :: self.NUM_TURNS] = upright_BCHW[turns :: self.NUM_TURNS].rot90(turns, (2, 3))
        return appended(batch, turned_BCHW)

    def loss(self, index: int, features_BCHW: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy on the number of quarter turns."""
        num_labelled = batch.y_B.shape[0]
        logits_BN = self.heads[block_name(index)](trailing(features_BCHW, batch))
        turns_B = torch.arange(num_labelled, device=batch.y_B.device) % self.NUM_TURNS
        return cross_entropy(logits_BN, turns_B)
