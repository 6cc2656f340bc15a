"""Prediction heads of CPC: from each position of a map, the features of positions below it."""

from __future__ import annotations

from torch import Tensor, nn

from heads.classifiers import average_pool
from layers.convolution import Conv2d
from model import Shape

GRID = 7  # rows and columns at most, those of the patches of Greedy InfoMax (arXiv 1905.11786)
SKIP = 1  # rows between a position and the first position predicted from it (loeweX/Greedy_InfoMax)


def num_predicted(shape: Shape) -> int:
    """How many rows below a position can be predicted on a map of ``shape``; none, if it has less than three rows."""
    return max(average_pool(shape, GRID)[1].height - 1 - SKIP, 0)


class RowPrediction(nn.Module):
    """Average-pool to at most `GRID` x `GRID`, then a 1x1 convolution without bias for every row to predict."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.pool, small = average_pool(shape, GRID)
        self.num_channels = shape.channels
        self.predictor = Conv2d(shape.channels, num_predicted(small) * shape.channels, 1, bias=False)

    def forward(self, features_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """The pooled map z (B, C, H, W), and (B, K, C, H, W): at each position W_k z, for the row k + `SKIP` below."""
        z_BCHW = self.pool(features_BCHW)
        return z_BCHW, self.predictor(z_BCHW).unflatten(1, (-1, self.num_channels))
