"""Synthesisers give the map's shape, those of gradients start at zero, and only taps that never matter are left out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from heads.synthesiser import InputSynthesiser, Synthesiser
from model import Shape
from utils import UsageError


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (2, 2), (3, 3), (8, 5)])
@pytest.mark.parametrize("classes", [0, 4])
def test_shape_is_kept_and_the_start_is_zero(size: tuple[int, int], classes: int) -> None:
    synthesiser = Synthesiser(Shape(3, *size), classes)
    out = synthesiser(torch.randn(5, 3, *size), torch.arange(5) % 4)
    assert out.shape == (5, 3, *size)
    assert not out.any()


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (2, 2), (3, 3), (4, 4)])
def test_a_small_map_has_the_convolution_of_the_whole_kernel(size: tuple[int, int]) -> None:
    first = Synthesiser(Shape(3, *size)).first.double()
    whole = torch.randn(3, 3, 5, 5, dtype=torch.float64)  # its outer taps are random and must not matter
    rows, columns = ((5 - kernel) // 2 for kernel in first.kernel_size)
    with torch.no_grad():
        first.weight.copy_(whole[:, :, rows : 5 - rows, columns : 5 - columns])
    x_BCHW = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(first(x_BCHW), F.conv2d(x_BCHW, whole, padding=2))


def test_the_label_shifts_every_position_alike() -> None:
    synthesiser = Synthesiser(Shape(3, 4, 4), 2)
    x_BCHW = torch.randn(1, 3, 4, 4)
    seen: list[torch.Tensor] = []
    synthesiser.rest[0].register_forward_hook(lambda module, args, output: seen.append(args[0].detach()))
    for label in (0, 1):
        synthesiser(x_BCHW, torch.tensor([label]))
    shift = seen[1] - seen[0]
    assert synthesiser.context is not None
    table_CN = synthesiser.context.weight
    expected = (table_CN[:, 1] - table_CN[:, 0])[None, :, None, None].expand_as(shift)
    torch.testing.assert_close(shift, expected)


@pytest.mark.parametrize(
    ("image", "size"), [((8, 8), (8, 8)), ((28, 28), (3, 3)), ((11, 9), (4, 5)), ((7, 4), (1, 1)), ((2, 2), (1, 2))]
)
def test_a_synthetic_input_has_the_shape_of_the_map(image: tuple[int, int], size: tuple[int, int]) -> None:
    out = InputSynthesiser(Shape(3, *image), Shape(6, *size))(torch.randn(5, 3, *image))
    assert out.shape == (5, 6, *size)
    assert out.std() > 0


def test_a_pixel_of_a_synthetic_input_sees_its_tile_of_the_image() -> None:
    """An average over tiles, from the upper left corner on; what does not fill a tile is left out."""
    synthesiser = InputSynthesiser(Shape(1, 11, 9), Shape(1, 4, 4)).double()
    synthesiser.first = synthesiser.rest = torch.nn.Identity()
    x_BCHW = torch.randn(2, 1, 11, 9, dtype=torch.float64)
    tiles = x_BCHW[:, :, :8, :8].unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean((3, 5))
    torch.testing.assert_close(synthesiser(x_BCHW), tiles)


def test_a_map_larger_than_the_image_is_refused() -> None:
    with pytest.raises(UsageError, match="a synthetic input of 9x4 pixels cannot be made from images of 8x8"):
        InputSynthesiser(Shape(3, 8, 8), Shape(6, 9, 4))
