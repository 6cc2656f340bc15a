"""The similarity head keeps the shape and has no bias."""

from __future__ import annotations

import pytest
import torch

from heads.similarity import similarity_convolution
from model import Shape


@pytest.mark.parametrize("size", [1, 2, 7])
def test_shape_and_parameters(size: int) -> None:
    head = similarity_convolution(Shape(4, size, size))
    assert head(torch.zeros(2, 4, size, size)).shape == (2, 4, size, size)
    assert [p.shape for p in head.parameters()] == [(4, 4, 3, 3)]
    assert not head(torch.zeros(2, 4, size, size)).any()
