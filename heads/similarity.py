"""Similarity heads: from a block's output to the features on which similarity matching compares images."""

from __future__ import annotations

from torch import nn

from layers.convolution import Conv2d
from model import Shape


def similarity_convolution(shape: Shape) -> nn.Module:
    """Conv 3x3 to as many channels, without bias: g of Nokland & Eidnes 2019 (arXiv 1901.06656)."""
    return Conv2d(shape.channels, shape.channels, 3, padding=1, bias=False)


def similarity_linear(num_features: int) -> nn.Module:
    """Linear to as many features, without bias: g behind a fully connected layer (Nokland & Eidnes 2019)."""
    return nn.Linear(num_features, num_features, bias=False)
