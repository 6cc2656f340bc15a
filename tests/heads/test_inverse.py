"""Inverses of blocks: with the forward weights they are the transposed Jacobian; what cannot be inverted is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from heads.inverse import BlockInverse, OutputInverse, run
from layers.local import LocallyConnected2d
from model import Block, Shape
from networks.table import convolutional_block, residual_block
from schemas import ModelArgs
from utils import UsageError


def block_of(*layers: nn.Module, shape: Shape) -> Block:
    return Block(nn.Sequential(*layers), shape, nn.Identity(), nn.Identity())


CONVOLUTIONS = {
    "plain": nn.Conv2d(3, 4, 3, padding=1),
    "stride": nn.Conv2d(3, 4, 3, stride=2, padding=1),
    "wide stride": nn.Conv2d(3, 4, 5, stride=3, padding=1),
    "no padding": nn.Conv2d(3, 4, (3, 5)),
    "dilation": nn.Conv2d(3, 4, 3, padding=2, dilation=2),
    "groups": nn.Conv2d(3, 6, 3, padding=1, groups=3),
    "circular": nn.Conv2d(3, 4, 5, padding=2, padding_mode="circular"),
}
POOLS = {"no pool": nn.Identity(), "pool": nn.MaxPool2d(2), "overlapping": nn.MaxPool2d(3, 2, padding=1)}


@pytest.mark.parametrize("convolution", [*CONVOLUTIONS, "local"])
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("size", [8, 9])
def test_with_the_forward_weights_it_is_the_transposed_jacobian(convolution: str, pool: str, size: int) -> None:
    torch.manual_seed(1)
    layer = CONVOLUTIONS.get(convolution, LocallyConnected2d(3, 4, (size, size), 3)).double()
    block = block_of(layer, nn.ReLU(inplace=True), POOLS[pool], shape=Shape(1, 1, 1))
    inverse = BlockInverse(block, Shape(3, size, size), "block_00", bias=False).double()
    x_BCHW = torch.randn(2, 3, size, size, dtype=torch.float64, requires_grad=True)
    out_BCHW = block(x_BCHW)
    small_BCHW = 1e-3 * torch.randn_like(out_BCHW) * out_BCHW.detach().clamp(max=1)  # no unit falls silent
    (expected,) = torch.autograd.grad(out_BCHW, x_BCHW, small_BCHW)
    with torch.no_grad():
        seen = run(block, x_BCHW)
        moved = inverse.spread(seen.out_BCHW + small_BCHW, seen) - inverse.spread(seen.out_BCHW, seen)
        found = inverse(moved, [layer.weight])
    assert torch.equal(seen.out_BCHW, out_BCHW)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)


def test_a_silent_unit_stays_silent() -> None:
    block = block_of(nn.Conv2d(3, 4, 1), nn.ReLU(), shape=Shape(4, 5, 5))
    inverse = BlockInverse(block, Shape(3, 5, 5), "block_00")
    seen = run(block, torch.randn(2, 3, 5, 5))
    spread = inverse.spread(torch.ones(2, 4, 5, 5), seen)
    assert torch.equal(spread > 0, seen.out_BCHW > 0)


def test_the_curvature_of_a_reconstruction_is_at_most_two() -> None:
    """`fan_in` is what a pixel is a sum of: over ``fan_in * mean(v^2)``, a mean square error has a trace of two."""
    torch.manual_seed(0)
    block = convolutional_block(Shape(3, 8, 8), 4, 3, pool=True, args=ModelArgs(padding_mode="circular"))
    inverse = BlockInverse(block, Shape(3, 8, 8), "block_00", bias=False)
    seen = run(block, torch.randn(5, 3, 8, 8))
    v_BCHW = inverse.spread(seen.out_BCHW, seen).detach()
    power = inverse.fan_in * v_BCHW.square().mean()

    def loss(column: torch.Tensor) -> torch.Tensor:
        weight = torch.cat((column, inverse.weight.detach()[:, 1:]), 1)
        return inverse(v_BCHW, [weight]).square().sum(1).mean() / power

    hessian = torch.autograd.functional.hessian(loss, inverse.weight[:, :1].detach())
    assert hessian.flatten(4).flatten(0, 3).trace() == pytest.approx(2, rel=1e-4)


def test_the_output_s_inverse_ends_like_the_last_block() -> None:
    block = convolutional_block(Shape(3, 8, 8), 4, 3, pool=True, args=ModelArgs())
    inverse = OutputInverse(5, block)
    guess = inverse(torch.randn(3, 5), [*inverse.parameters()])
    assert guess.shape == (3, 4, 4, 4) and guess.min() == 0


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (residual_block(Shape(4, 8, 8), 4, False, ModelArgs()), r"^here cannot be inverted: it is Residual, and not"),
        (block_of(nn.Conv2d(3, 4, 3), nn.GELU(), shape=Shape(4, 6, 6)), r"Conv2d - GELU, and not a convolution"),
        (block_of(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(2), shape=Shape(4, 3, 3)), "ReLU - AvgPool2d, and not"),
        (block_of(nn.Conv2d(3, 4, 3, padding="same"), nn.ReLU(), shape=Shape(4, 8, 8)), "a number of zeros"),
        (block_of(LocallyConnected2d(3, 4, (8, 8), 3, "circular"), nn.ReLU(), shape=Shape(4, 8, 8)), "number of zeros"),
        (
            block_of(nn.Conv2d(3, 4, 3, 2, padding=1, padding_mode="circular"), nn.ReLU(), shape=Shape(4, 4, 4)),
            "a number of zeros",
        ),
    ],
)
def test_what_has_no_inverse_is_refused_in_one_line(block: Block, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refusal:
        BlockInverse(block, Shape(3, 8, 8), "here")
    assert "\n" not in str(refusal.value)
