"""A locally connected layer against convolutions with the weights of a position."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layers.local import LocallyConnected2d, transposed
from networks import build_backbone
from schemas import ModelArgs
from tests.conftest import make_spec

MODES = pytest.mark.parametrize("mode", ["zeros", "circular", "reflect"])


def layer_and_image(mode: str = "zeros") -> tuple[LocallyConnected2d, torch.Tensor]:
    torch.manual_seed(0)
    return LocallyConnected2d(3, 4, (5, 6), 3, mode).double(), torch.randn(2, 3, 5, 6, dtype=torch.float64)


def convolution_of(layer: LocallyConnected2d, row: int, column: int) -> nn.Conv2d:
    """That of one position, with its weights everywhere."""
    convolution = nn.Conv2d(3, 4, 3, padding=1, padding_mode=layer.padding_mode).double()
    place = slice(4 * (6 * row + column), 4 * (6 * row + column) + 4)
    convolution.weight.data.copy_(layer.weight[place].view(4, 3, 3, 3))
    convolution.bias.data.copy_(layer.bias[place])
    return convolution


@MODES
def test_each_position_is_that_of_a_convolution_with_its_weights(mode: str) -> None:
    layer, x_BCHW = layer_and_image(mode)
    out_BCHW = layer(x_BCHW)
    for row, column in ((0, 0), (0, 5), (2, 3), (4, 5), (4, 0)):
        expected_BCHW = convolution_of(layer, row, column)(x_BCHW)
        torch.testing.assert_close(out_BCHW[..., row, column], expected_BCHW[..., row, column])


@MODES
def test_with_equal_weights_everywhere_it_is_a_convolution_and_its_gradients_add_up(mode: str) -> None:
    layer, x_BCHW = layer_and_image(mode)
    convolution = convolution_of(layer, 0, 0)
    layer.weight.data.copy_(layer.weight[:4].repeat(30, 1))
    layer.bias.data.copy_(layer.bias[:4].repeat(30))
    leaves = [x_BCHW.clone().requires_grad_() for _ in range(2)]
    outs = [part(leaf) for part, leaf in zip((layer, convolution), leaves, strict=True)]
    torch.testing.assert_close(*outs)
    grad_BCHW = torch.randn_like(outs[0])
    for out in outs:
        out.backward(grad_BCHW)
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad)
    torch.testing.assert_close(layer.weight.grad.view(30, 4, 3, 3, 3).sum(0), convolution.weight.grad)
    torch.testing.assert_close(layer.bias.grad.view(30, 4).sum(0), convolution.bias.grad)


def test_transposed_is_the_gradient_at_the_input() -> None:
    layer, x_BCHW = layer_and_image()
    leaf = x_BCHW.requires_grad_()
    out_BCHW = layer(leaf)
    grad_BCHW = torch.randn_like(out_BCHW)
    (expected_BCHW,) = torch.autograd.grad(out_BCHW, leaf, grad_BCHW)
    torch.testing.assert_close(transposed(grad_BCHW, layer.weight, (3, 3), padding=(1, 1)), expected_BCHW)
    padded_BCHW = transposed(grad_BCHW, layer.weight, (3, 3))
    assert padded_BCHW.shape == (2, 3, 7, 8)
    torch.testing.assert_close(padded_BCHW[..., 1:-1, 1:-1], expected_BCHW)


def test_windows_that_do_not_overlap_have_weights_of_their_own_too() -> None:
    torch.manual_seed(0)
    layer = LocallyConnected2d(3, 4, (4, 6), (2, 3)).double()
    leaf = torch.randn(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    out_BCHW = layer(leaf)
    assert out_BCHW.shape == (2, 4, 2, 2) and layer.size == (2, 2)
    for place, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        window_BK = leaf[:, :, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3].flatten(1)
        mine = slice(4 * place, 4 * place + 4)
        torch.testing.assert_close(out_BCHW[..., row, column], window_BK @ layer.weight[mine].T + layer.bias[mine])
    grad_BCHW = torch.randn_like(out_BCHW)
    (expected_BCHW,) = torch.autograd.grad(out_BCHW, leaf, grad_BCHW)
    torch.testing.assert_close(transposed(grad_BCHW, layer.weight, (2, 3), (2, 3)), expected_BCHW)


def test_the_network_has_the_shapes_of_its_twin_with_shared_weights() -> None:
    with torch.device("meta"):
        local, shared = (build_backbone(ModelArgs(model=name), make_spec(32)) for name in ("BasicLC", "VGGsw"))
    assert local.out_shapes == shared.out_shapes
    for mine, theirs, out in zip(local.blocks, shared.blocks, (32, 16, 8), strict=True):
        weight, kernels = mine.features[0].weight, theirs.features[0].weight
        assert weight.numel() == out**2 * kernels.numel()
