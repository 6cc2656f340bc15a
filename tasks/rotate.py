"""Rotation: every block but the last also learns to classify the rotation of an image.

Paper:
    Gidaris, Singh, Komodakis 2018, "Unsupervised Representation Learning by Predicting Image Rotations", arXiv
    1803.07728.

Signal:
    s_i is the cross-entropy of a classifier of four turns, of the kind that ``--pred_aux_type`` names. The labelled
    images stay upright; the blocks also see the same images again, image b turned by b mod 4 quarters: every turn
    equally often, and no random number is drawn.

Cost:
    Twice the images, and a classifier for each block.

Deviations:
    1. Turned copies enter the statistics of BatchNorm together with the upright images.
    2. Local, and together with other losses; an open question of AlonNT/Thesis, not run there.

Reference numbers:
    None that we could compare with: the paper trains end to end.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn

from datamodules.base import LABELLED, Batch, DataSpec
from heads.classifiers import CLASSIFIERS
from model import Backbone, Shape
from objectives.classification import cross_entropy
from sections.heads import Heads
from sections.rule import MethodArgs
from tasks._base import Task
from utils import UsageError

NUM_TURNS = 4
TURNED = "turned"  # names the copies in a batch


class Rotation(Task):
    """Classify the turn of an image.

    Raises:
        UsageError: the images are not square.
    """

    def __init__(self, args: MethodArgs, backbone: Backbone, spec: DataSpec, blocks: Iterable[int]) -> None:
        if spec.height != spec.width:
            raise UsageError(
                f"{args.tasks.flag_of('rotate')} turns images by 90 degrees, so they must be square, but these are "
                f"{spec.height}x{spec.width}; leave it out, or choose another task"
            )
        super().__init__(args, backbone, spec, blocks)

    def build_head(self, shape: Shape) -> nn.Module:
        """A classifier of the kind that ``--pred_aux_type`` names."""
        heads = self.args.group(Heads)
        build = CLASSIFIERS[heads.pred_aux_type]
        return build(shape, NUM_TURNS, heads.aux_mlp_n_hidden_layers, heads.aux_mlp_hidden_dim)

    def prepare(self, batch: Batch) -> Batch:
        """Add the turned images."""
        upright_BCHW = batch.part(batch.x_BCHW, LABELLED)
        turned_BCHW = upright_BCHW.clone()
        before = batch.share[0] * len(batch.y_B)  # images of other replicas
        for turns in range(1, NUM_TURNS):
            these = slice((turns - before) % NUM_TURNS, None, NUM_TURNS)
            turned_BCHW[these] = upright_BCHW[these].rot90(turns, (2, 3))
        return batch.with_images(TURNED, turned_BCHW)

    def loss(self, index: int, features_BCHW: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy on the number of quarter turns."""
        logits_BN = self.head(index)(batch.part(features_BCHW, TURNED))
        turns_B = batch.rows_of_step(partial(torch.arange, device=batch.y_B.device)) % NUM_TURNS
        return cross_entropy(logits_BN, turns_B)
