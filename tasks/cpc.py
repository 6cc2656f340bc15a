"""Predictive coding: every block but the last also learns to predict lower rows of its map from higher ones.

Paper:
    Lowe, O'Connor, Veeling 2019, "Putting An End to End-to-End: Gradient-Isolated Learning of Representations" (Greedy
    InfoMax), arXiv 1905.11786; van den Oord, Li, Vinyals 2018, "Representation Learning with Contrastive Predictive
    Coding", arXiv 1807.03748; code loeweX/Greedy_InfoMax.

Signal:
    s_i is the loss `objectives.contrastive.predictive_coding`. With z the block's output before the pool, averaged to
    at most 7x7 positions, ``z_r`` at row r of a column predicts ``z_{r+k+1}`` in the same column for k = 1 to 5, as far
    as there are rows: the score of a candidate z is ``z^T W_k z_r``, and the right one must be found among 16 more,
    drawn as theirs from all images and columns, but from the rows that are predicted for this k alone (the third and
    below for k = 1), so that how far down a candidate lies does not tell the right one from the others. s_i is the
    mean over k; ln 17 = 2.833 is chance. Blocks whose map has less than three rows have no such loss. ``--ssl
    --pred_loss_weight 0 --ssl_loss_weight 0 --cpc_loss_weight 1`` is Greedy InfoMax, where all maps are large enough.

Cost:
    For each block a 1x1 convolution to at most five times its channels, and 17 candidates of its width for every
    position and k.

Deviations:
    1. The positions are those of the map, and they see each other through the block's kernels and statistics. The
       paper cuts the image into patches that overlap by half and encodes each by itself, without BatchNorm.
    2. W_k stands at the other vector, which is the same bilinear form.
    3. The candidates of a position are drawn once a step and serve all k and all blocks, each number taken modulo the
       count of positions in the predicted rows; theirs are drawn anew for each k and module. As theirs they may be the
       right one, once in as many times as there are such positions.
    4. A run that was begun by an earlier version, which drew from all rows, goes on with these negatives.
    5. The blocks see the labelled images as they are augmented for the other losses; the paper crops 64x64 from STL-10
       without labels, and makes them grey.

Reference numbers:
    STL-10, linear classifier on the last module: Greedy InfoMax 81.9 %, end-to-end CPC 80.5 %, supervised 71.4 % (from
    the paper).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from datamodules.base import LABELLED, Batch, DataSpec
from heads.prediction import GRID, SKIP, RowPrediction, num_predicted
from model import Backbone, Shape
from objectives.contrastive import predictive_coding
from sections.rule import MethodArgs
from tasks._base import Task
from utils import UsageError

NUM_NEGATIVES = 16
NUM_ANCHORS = (GRID - 1 - SKIP) * GRID  # positions of an image from which anything is predicted, at most
CANDIDATES = "cpc_candidates"


class PredictiveCoding(Task):
    """Predict from each position of a map what lies below it.

    Raises:
        UsageError: no block has a map in which anything lies far enough below.
    """

    def __init__(self, args: MethodArgs, backbone: Backbone, spec: DataSpec, blocks: Iterable[int]) -> None:
        super().__init__(args, backbone, spec, blocks := list(blocks))
        if blocks and not self.heads:
            raise UsageError(
                f"--cpc_loss_weight needs maps of {2 + SKIP} rows or more, in which to predict what lies below; no "
                "block but the last has one"
            )

    def fits(self, shape: Shape) -> bool:
        """Whether anything lies far enough below."""
        return num_predicted(shape) > 0

    def build_head(self, shape: Shape) -> nn.Module:
        """Predicts the rows below."""
        return RowPrediction(shape)

    def prepare(self, batch: Batch) -> Batch:
        """Draw the candidates, as numbers that are far larger than the positions."""
        shape, device, source = (NUM_ANCHORS, NUM_NEGATIVES), batch.y_B.device, batch.generator
        drawn = batch.rows_of_step(lambda count: torch.randint(2**31, (count, *shape), device=device, generator=source))
        return batch._replace(drawn={**batch.drawn, CANDIDATES: drawn})

    def loss(self, index: int, features_BCHW: Tensor, batch: Batch) -> Tensor:
        """InfoNCE, on the labelled images."""
        z_BCHW, predicted_BKCHW = self.head(index)(batch.part(features_BCHW, LABELLED))
        return predictive_coding(z_BCHW, predicted_BKCHW, batch.drawn[CANDIDATES], SKIP)
