"""Decoders: shapes, the parameter counts of the thesis, and what interpolation promises."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from heads.decoder import bilinear, decoder
from model import Shape

IMAGE = Shape(3, 32, 32)


@pytest.mark.parametrize("kind", ["transposed", "bilinear"])
@pytest.mark.parametrize(
    ("side", "image", "out"), [(32, 32, 32), (16, 32, 32), (4, 32, 32), (1, 32, 32), (7, 28, 28), (3, 28, 24)]
)
def test_up_sampling_doubles_as_far_as_the_image(kind: str, side: int, image: int, out: int) -> None:
    head = decoder(Shape(8, side, side), Shape(3, image, image), kind)
    assert head(torch.randn(2, 8, side, side)).shape == (2, 3, out, out)


def test_without_up_sampling_the_size_stays() -> None:
    head = decoder(Shape(8, 16, 16), IMAGE, None)
    assert head(torch.randn(2, 8, 16, 16)).shape == (2, 3, 16, 16)
    assert isinstance(head[-1], nn.Conv2d) and len(head) == 1


# Counts of the thesis's decoders on VGG11c; theirs also have the biases that BatchNorm subtracts.
@pytest.mark.parametrize(
    ("channels", "side", "theirs", "biases"),
    [(64, 32, 195, 0), (128, 32, 387, 0), (256, 16, 131_843, 128), (512, 8, 656_899, 256 + 128)],
)
def test_parameters_are_those_of_the_thesis(channels: int, side: int, theirs: int, biases: int) -> None:
    head = decoder(Shape(channels, side, side), IMAGE, "transposed")
    assert sum(p.numel() for p in head.parameters()) == theirs - biases


def test_convolution_and_interpolation_commute() -> None:
    convolution, enlarge = bilinear(6, 3).double()
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(enlarge(convolution(x)), convolution(enlarge(x)))
