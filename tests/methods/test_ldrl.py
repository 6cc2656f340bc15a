"""Inverses that learn the transposed Jacobian: at it their gradient is zero, and the targets are gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.base import Batch
from heads.inverse import run
from layers.normalisation import untracked
from methods.ldrl import LocalDifferenceReconstruction
from model import Backbone, Block, Shape, mlp
from tests.conftest import CLASSES, gradients, make_batch, make_method, seed, strided_backbone

SIZE = 4


def make(backbone: Backbone | None = None, *, told: bool = False, **settings: object) -> LocalDifferenceReconstruction:
    """The method; with ``told``, its inverses have the forward weights."""
    method = make_method("ldrl", backbone, **settings)
    assert isinstance(method, LocalDifferenceReconstruction)
    with torch.no_grad():
        for index in (1, 2) if told else ():
            method.inverse(index).weight.copy_(method.backbone.block(index).features[0].weight)
    return method


def without_normalisation() -> Backbone:
    """Convolutions with a stride, ReLU and pools."""
    torch.manual_seed(0)
    backbone = strided_backbone()
    for block in backbone.blocks:
        block.features[1] = nn.Identity()
    return backbone


def linear() -> Backbone:
    """1x1 convolutions of maps of one pixel, above zero where ReLU is the identity."""
    torch.manual_seed(0)
    blocks = []
    for _ in range(3):
        convolution = nn.Conv2d(SIZE, SIZE, 1)
        nn.init.uniform_(convolution.weight, -0.2, 0.2)
        nn.init.constant_(convolution.bias, 50.0)
        blocks.append(Block(nn.Sequential(convolution, nn.ReLU()), Shape(SIZE, 1, 1), nn.Identity(), nn.Identity()))
    return Backbone(blocks, mlp(SIZE, len(CLASSES), 1, 7))


@pytest.mark.parametrize("told", [True, False])
def test_at_the_transposed_weights_the_inverses_stand_still(told: bool) -> None:
    """With noise ``{+-s sqrt(n) e_i}`` instead of normal noise, which has the same second moments exactly."""
    method = make(linear(), told=told)
    x_BCHW = torch.randn(2 * SIZE, SIZE, 1, 1, dtype=torch.float64)
    set_BD = 0.3 * SIZE**0.5 * torch.cat((torch.eye(SIZE), -torch.eye(SIZE))).double()
    method.noise = lambda like, trace: set_BD.view_as(like)  # type: ignore[method-assign]
    method.fill_grads(Batch(x_BCHW, torch.arange(2 * SIZE) % len(CLASSES)))
    for index in (1, 2):
        inverse = method.inverse(index)
        rest_OI = (inverse.weight - method.backbone.block(index).features[0].weight)[:, :, 0, 0]
        torch.testing.assert_close(inverse.weight.grad[:, :, 0, 0], 2 * rest_OI, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("target_step", [1e-4, 1e-2])
def test_with_the_forward_weights_it_is_back_propagation(target_step: float) -> None:
    """On ReLU and pools exactly, as long as no unit falls silent; the gradient's scale included."""
    method = make(without_normalisation(), told=True, target_step=target_step)
    whole = make_method("bp", without_normalisation())
    for trained in (method, whole):
        trained.fill_grads(make_batch())
    for key, gradient in gradients(whole).items():
        tolerance = 1e-9 * gradient.abs().max().item()
        torch.testing.assert_close(gradients(method)[key], gradient, rtol=1e-8, atol=tolerance, msg=key)


def test_a_large_step_silences_units_and_the_direction_is_another() -> None:
    method, whole = (
        make(without_normalisation(), told=True, target_step=10.0),
        make_method("bp", without_normalisation()),
    )
    for trained in (method, whole):
        trained.fill_grads(make_batch())
    key = "backbone.blocks.0.features.0.weight"
    assert not torch.allclose(gradients(method)[key], gradients(whole)[key], rtol=1e-3)


def test_an_inverse_learns_as_in_a_plain_loop() -> None:
    method, batch = make(), make_batch()
    block, inverse = method.backbone.block(2), method.inverse(2)
    drawn: list[Tensor] = []
    draw = method.noise
    method.noise = lambda like, trace: drawn.append(draw(like, trace)) or drawn[-1]  # type: ignore[method-assign]
    seed("ldrl")
    method.fill_grads(batch)
    with torch.no_grad(), untracked(method):
        x_BCHW = method.backbone.block(1)(method.backbone.block(0)(batch.x_BCHW))
        seen = run(block, x_BCHW)
        noisy_BCHW = block(x_BCHW + drawn[0])

    def back(u_BCHW: Tensor) -> Tensor:
        u_BCHW = torch.where(seen.out_BCHW > 0, u_BCHW.relu(), 0)
        return F.conv_transpose2d(F.max_unpool2d(u_BCHW, seen.chosen_BCHW, 2), inverse.weight, padding=1)

    rest_BCHW = back(seen.out_BCHW)
    loss = (back(seen.out_BCHW + drawn[1]) - rest_BCHW).square() - 2 * drawn[0] * (back(noisy_BCHW) - rest_BCHW)
    loss = loss.sum() / (6 * x_BCHW[0, 0].numel() * 0.3**2)
    torch.testing.assert_close(inverse.weight.grad, torch.autograd.grad(loss, inverse.weight)[0], rtol=1e-8, atol=1e-12)


def test_inverses_turn_towards_the_transposed_weights() -> None:
    torch.manual_seed(0)
    method = make(without_normalisation(), inverse_steps=20, inverse_noise=0.03)
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(method.inverses.parameters(), lr=0.1)
    cosines = []
    for _ in range(30):
        x_BCHW = torch.randn(32, 3, 8, 8, generator=generator, dtype=torch.float64)
        method.zero_grad()
        method.fill_grads(Batch(x_BCHW, torch.randint(len(CLASSES), (32,), generator=generator)))
        optimizer.step()
        forward, back = method.backbone.block(2).features[0].weight, method.inverse(2).weight
        cosines.append(F.cosine_similarity(forward.flatten(), back.flatten(), 0).item())
    (pair,) = method.feedback_pairs(2)
    assert pair[0] is back and pair[1] is forward and method.feedback_pairs(0) == []
    assert cosines[0] < 0.5 and cosines[-1] > 0.8
