"""Projection heads: from a block's output to the embedding on which a contrastive loss compares images."""

from __future__ import annotations

from torch import nn

from heads.classifiers import average_pool
from model import Shape, mlp

NUM_EMBEDDED = 128  # size of the embedding (HobbitLong/SupContrast; InfoPro)


def projection(shape: Shape) -> nn.Module:
    """Average over the map, Linear C to C, ReLU, Linear to 128 (HobbitLong/SupContrast; not scaled to unit length)."""
    pool, small = average_pool(shape, 1)
    return nn.Sequential(pool, mlp(small.num_features, NUM_EMBEDDED, 1, shape.channels))
