"""The picture of the first kernels."""

from __future__ import annotations

import torch

from diagnostics.filters import TILE, first_filters
from tests.conftest import strided_backbone

BORDER, TILE_OF_3 = 4, 33  # 3 pixels, enlarged eleven times to 32 or more


def test_every_kernel_is_a_tile_from_black_to_white() -> None:
    backbone = strided_backbone()
    kernel = torch.linspace(-2, 6, 27).view(3, 3, 3)
    with torch.no_grad():
        backbone.block(0).features[0].weight[1] = kernel
        backbone.block(0).features[0].weight[2] = 0.25
    grid_HWC = first_filters(backbone)
    assert grid_HWC is not None and grid_HWC.dtype == torch.uint8
    assert TILE <= TILE_OF_3
    assert grid_HWC.shape == (TILE_OF_3 + 2 * BORDER, 4 * (TILE_OF_3 + BORDER) + BORDER, 3)
    left = BORDER + TILE_OF_3 + BORDER
    tile_HWC = grid_HWC[BORDER : BORDER + TILE_OF_3 : 11, left : left + TILE_OF_3 : 11]
    assert torch.equal(tile_HWC.permute(2, 0, 1), ((kernel + 2) / 8 * 255).round().byte())
    assert (grid_HWC[BORDER:-BORDER, left + TILE_OF_3 + BORDER : left + 2 * TILE_OF_3 + BORDER] == 0).all()


def test_kernels_that_are_no_picture_are_left_out() -> None:
    backbone = strided_backbone()
    backbone.block(0).features[0] = torch.nn.Conv2d(5, 4, 3)
    assert first_filters(backbone) is None
