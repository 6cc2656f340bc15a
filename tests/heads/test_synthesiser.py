"""Synthesisers keep the shape, start at zero and leave out only taps that can never matter."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from heads.synthesiser import Synthesiser
from model import Shape


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
