"""Contrast of brightness and colours: the loss by hand, what the parts are, and the sum of all losses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from consts import block_name
from datamodules.base import LABELLED
from objectives.contrastive import cross_view
from tasks.cmc import CHROMINANCE, LUMINANCE
from tests.conftest import gradients, make_batch, make_method


def by_loops(first_BD: Tensor, second_BD: Tensor, temperature: float) -> Tensor:
    """Every image is an anchor once with each part; the positive is its other part, the rest the others' other part."""
    total, count = torch.zeros((), dtype=torch.float64), len(first_BD)
    for anchors, others in ((first_BD, second_BD), (second_BD, first_BD)):
        for i in range(count):
            scores = torch.stack([F.cosine_similarity(anchors[i], others[j], dim=0) for j in range(count)])
            total = total - (scores / temperature).log_softmax(0)[i] / count
    return total


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_the_loss_is_that_of_loops(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(5, 4, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2)]
    ours, theirs = cross_view(*views, temperature), by_loops(*views, temperature)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    for own, other in zip(torch.autograd.grad(ours, views), torch.autograd.grad(theirs, views), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-12)


def test_known_values() -> None:
    same_BD = torch.ones(7, 3, dtype=torch.float64)
    assert cross_view(same_BD, 2 * same_BD, 0.07).item() == pytest.approx(2 * math.log(7))
    basis_BD = torch.eye(4, dtype=torch.float64)
    assert cross_view(basis_BD, basis_BD, 0.01).item() == pytest.approx(0, abs=1e-12)
    assert cross_view(basis_BD, basis_BD.roll(1, 0), 0.01).item() == pytest.approx(200)  # the worst: 1 / t each way
    half = cross_view(basis_BD.bfloat16(), basis_BD.roll(1, 0).bfloat16(), 0.01)
    assert half.dtype == torch.float32 and half.item() == pytest.approx(200)


def test_both_parts_add_up_to_the_image_and_one_has_no_colours() -> None:
    method, batch = make_method("dgl", cmc_loss_weight=1), make_batch()
    prepared = method.prepare(batch)
    image, luminance, chrominance = (
        prepared.part(prepared.x_BCHW, name) for name in (LABELLED, LUMINANCE, CHROMINANCE)
    )
    assert torch.equal(image, batch.x_BCHW)
    torch.testing.assert_close(luminance + chrominance, image, rtol=0, atol=1e-12)
    task = method.cmc
    grey = luminance * task.std_C11 + task.mean_C11
    torch.testing.assert_close(grey[:, :1].expand_as(grey), grey, rtol=1e-6, atol=1e-6)
    brightness = (task.share_C11 * chrominance * task.std_C11).sum(1)  # that of the colours is 0
    torch.testing.assert_close(brightness, torch.zeros_like(brightness), rtol=0, atol=1e-6)
    assert chrominance.abs().max() > 0.1


@pytest.mark.parametrize("more", [{}, {"ssl": True, "ssl_task": "colourise"}])
def test_gradients_are_those_of_the_sum_of_all_losses(more: dict[str, object]) -> None:
    settings = {"cmc_loss_weight": 0.3, "cmc_temperature": 0.2, **more}
    method, oracle, batch = make_method("dgl", **settings), make_method("dgl", **settings), make_batch()
    method.fill_grads(batch)
    luminance, chrominance = oracle.cmc.in_parts(batch)
    h_BCHW = torch.cat([batch.x_BCHW, *([luminance] if "ssl" in more else []), luminance, chrominance])
    total = torch.zeros((), dtype=torch.float64)
    for index in range(3):
        block = oracle.backbone.block(index)
        features_BCHW = block.features(h_BCHW.detach())
        h_BCHW = block.pool(features_BCHW)
        own = F.cross_entropy(oracle.head(index)(h_BCHW[:6]), batch.y_B)
        if index == 2:
            total = total + own
            continue
        total = total + (0.9 if "ssl" in more else 1) * own
        heads = oracle.cmc.heads[block_name(index)]
        parts = [
            heads[name](part) for name, part in zip((LUMINANCE, CHROMINANCE), features_BCHW[-12:].split(6), strict=True)
        ]
        total = total + 0.3 * by_loops(*parts, 0.2)
        if "ssl" in more:
            drawn_BCHW = oracle.ssl.heads[block_name(index)](features_BCHW[6:12])
            target_BCHW = F.adaptive_avg_pool2d(batch.x_BCHW, drawn_BCHW.shape[2:])
            total = total + 0.1 * (drawn_BCHW - target_BCHW).abs().mean()
    total.backward()
    for key, gradient in gradients(oracle).items():
        torch.testing.assert_close(gradients(method)[key], gradient, rtol=1e-8, atol=1e-10, msg=key)
