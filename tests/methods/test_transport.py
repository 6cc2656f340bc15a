"""Layers with feedback weights, against torch's own formulas."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from layers.local import LocallyConnected2d
from methods._transport import add_feedback
from model import Backbone, Shape, mlp
from networks.table import convolutional_block
from schemas import ModelArgs
from tests.conftest import CLASSES, make_method
from utils import UsageError

GEOMETRIES = {
    "plain": {},
    "stride": {"stride": 2, "padding": 1},  # of 8 pixels the last is outside every window
    "asymmetric": {"stride": (1, 2), "padding": (0, 2), "dilation": (2, 1)},
    "dilation": {"dilation": 2, "padding": 2},
    "groups": {"groups": 2, "padding": 1},
    "same": {"padding": "same"},
    "circular": {"padding": 1, "padding_mode": "circular"},
    "circular stride": {"stride": 2, "padding": (1, 2), "padding_mode": "circular"},
    "reflect": {"padding": 1, "padding_mode": "reflect"},
}


def with_feedback(layer: nn.Module) -> tuple[nn.Module, nn.Module]:
    """A layer in float64 with feedback, and a plain copy of it."""
    torch.manual_seed(1)
    plain = copy.deepcopy(layer.double())
    add_feedback(layer)
    return layer, plain


def run(layer: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output, input gradient, and the output's gradient that was used."""
    leaf = x.clone().requires_grad_()
    out = layer(leaf)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(3), dtype=out.dtype)
    out.backward(grad)
    assert leaf.grad is not None
    return out.detach(), leaf.grad, grad


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_convolution(geometry: str) -> None:
    """Output and own gradients are the plain layer's; the input's is the plain layer's with B for its weights."""
    layer, plain = with_feedback(nn.Conv2d(4, 6, 3, **GEOMETRIES[geometry]))
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    out, grad_in, _ = run(layer, x)
    expected, true_grad_in, _ = run(plain, x)
    assert torch.equal(out, expected)
    assert torch.equal(layer.weight.grad, plain.weight.grad)
    assert torch.equal(layer.bias.grad, plain.bias.grad)
    assert not torch.allclose(grad_in, true_grad_in)
    with torch.no_grad():
        plain.weight.copy_(layer.B)
    assert torch.equal(grad_in, run(plain, x)[1])


@pytest.mark.parametrize("geometry", ["plain", "stride", "asymmetric", "dilation", "groups"])
def test_input_gradient_is_the_formula_of_torch(geometry: str) -> None:
    settings = GEOMETRIES[geometry]
    layer, _ = with_feedback(nn.Conv2d(4, 6, 3, **settings))
    _, grad_in, grad = run(layer, torch.randn(2, 4, 8, 8, dtype=torch.float64))
    torch.testing.assert_close(grad_in, torch.nn.grad.conv2d_input((2, 4, 8, 8), layer.B, grad, **settings))


def test_circular_input_gradient_is_that_of_the_padded_image() -> None:
    layer, _ = with_feedback(nn.Conv2d(4, 6, 3, stride=2, padding=1, padding_mode="circular"))
    _, grad_in, grad = run(layer, torch.randn(2, 4, 8, 8, dtype=torch.float64))
    padded = torch.nn.grad.conv2d_input((2, 4, 10, 10), layer.B, grad, stride=2)
    folded = padded[..., 1:9, 1:9].clone()  # what left on one side comes in on the other
    folded[..., -1, :] += padded[..., 0, 1:9]
    folded[..., 0, :] += padded[..., 9, 1:9]
    folded[..., :, -1] += padded[..., 1:9, 0]
    folded[..., :, 0] += padded[..., 1:9, 9]
    for (row, to_row), (column, to_column) in [(r, c) for r in ((0, -1), (9, 0)) for c in ((0, -1), (9, 0))]:
        folded[..., to_row, to_column] += padded[..., row, column]
    torch.testing.assert_close(grad_in, folded)


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5)])
def test_linear(shape: tuple[int, ...]) -> None:
    layer, plain = with_feedback(nn.Linear(5, 4))
    x = torch.randn(*shape, dtype=torch.float64)
    out, grad_in, grad = run(layer, x)
    assert torch.equal(out, run(plain, x)[0])
    assert torch.equal(grad_in, grad @ layer.B)
    assert torch.equal(layer.weight.grad, plain.weight.grad)


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 4, 3), nn.Linear(3, 4)], ids=["conv", "linear"])
def test_feedback_has_the_law_of_the_weights_and_another_draw(layer: nn.Module) -> None:
    wide = nn.Conv2d(64, 128, 3) if isinstance(layer, nn.Conv2d) else nn.Linear(500, 200)
    add_feedback(wide)
    assert not wide.B.requires_grad
    assert not torch.equal(wide.B, wide.weight)
    assert wide.B.shape == wide.weight.shape
    assert wide.B.std().item() == pytest.approx(wide.weight.std().item(), rel=0.01)
    assert wide.B.abs().max().item() == pytest.approx(wide.weight.abs().max().item(), rel=0.01)


@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect"])
def test_locally_connected(mode: str) -> None:
    layer, plain = with_feedback(LocallyConnected2d(3, 4, (8, 8), 3, mode))
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    out, grad_in, _ = run(layer, x)
    expected, true_grad_in, _ = run(plain, x)
    assert torch.equal(out, expected)
    assert torch.equal(layer.weight.grad, plain.weight.grad) and torch.equal(layer.bias.grad, plain.bias.grad)
    assert not torch.allclose(grad_in, true_grad_in)
    plain.weight.data.copy_(layer.B)
    torch.testing.assert_close(grad_in, run(plain, x)[1])


def test_relu_in_place_and_no_needless_input_gradient() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 4), nn.ReLU(True))
    add_feedback(net)
    x = torch.randn(2, 3, 8, 8)
    net(x).sum().backward()  # an input that needs no gradient
    first = net[0].weight.grad.clone()
    net.zero_grad()
    net(x.requires_grad_()).sum().backward()
    assert torch.equal(net[0].weight.grad, first)
    with torch.no_grad():
        assert not net(x).requires_grad


@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_channels_last_and_bf16_are_as_in_a_plain_layer(mode: str) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 16, 3, padding=1, padding_mode=mode)
    plain = copy.deepcopy(layer).to(memory_format=torch.channels_last)
    add_feedback(layer)
    layer.B.copy_(layer.weight.detach())
    layer = layer.to(memory_format=torch.channels_last)
    start = torch.randn(2, 8, 6, 6).to(memory_format=torch.channels_last)
    for narrow in (False, True):
        results = []
        for tried in (layer, plain):
            x = start.clone().requires_grad_()
            tried.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
                out = tried(x)
                out.float().square().sum().backward()
            results.append((out.detach(), x.grad, tried.weight.grad))
        for value, expected in zip(*results, strict=True):
            assert value.dtype == expected.dtype
            assert value.stride() == expected.stride()
            torch.testing.assert_close(value, expected)


def test_a_layer_without_a_feedback_form_is_refused_in_one_line() -> None:
    block = convolutional_block(Shape(3, 8, 8), 4, 3, pool=True, args=ModelArgs())
    block.features[2] = nn.PReLU()
    backbone = Backbone([block], mlp(block.out_shape.num_features, len(CLASSES), 0, 1))
    with pytest.raises(UsageError, match=r"^a layer of type PReLU has weights but no feedback form; .*$") as caught:
        make_method("fa", backbone)
    assert caught.value.exit_code == 2
