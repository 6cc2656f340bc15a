"""Barlow Twins: the formula by loops, its known values, and the sum of losses as the oracle of a local rule."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from consts import block_name
from objectives.contrastive import simclr
from tasks.barlow import EPSILON, barlow_twins
from tests.conftest import gradients, make_batch, make_method


def by_loops(first_BD: torch.Tensor, second_BD: torch.Tensor, weight: float) -> torch.Tensor:
    """As the paper writes it, one number of the first view against all of the second at a time."""
    ones, others = (
        [(x_B - x_B.mean()) / ((x_B - x_B.mean()).pow(2).mean() + EPSILON).sqrt() for x_B in view_BD.T]
        for view_BD in (first_BD, second_BD)
    )
    total = torch.zeros((), dtype=first_BD.dtype)
    for j, one_B in enumerate(ones):
        correlations = (torch.stack(others) * one_B).sum(1) / len(one_B)
        total = total + (1 - correlations[j]) ** 2 + weight * (correlations.pow(2).sum() - correlations[j] ** 2)
    return total


@pytest.mark.parametrize("weight", [0.0, 0.005, 1.0])
def test_value_and_gradients_are_those_of_the_formula(weight: float) -> None:
    views = [torch.randn(7, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    ours, theirs = barlow_twins(*views, weight), by_loops(*views, weight)
    torch.testing.assert_close(ours, theirs)
    for own, other in zip(torch.autograd.grad(ours, views), torch.autograd.grad(theirs, views), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-12)


def test_known_values() -> None:
    walsh_BD = 1000 * torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    assert barlow_twins(walsh_BD, walsh_BD, 1.0).item() == pytest.approx(0, abs=1e-9)  # equal, and uncorrelated
    assert barlow_twins(walsh_BD, -walsh_BD, 1.0).item() == pytest.approx(12)  # (1 + 1)^2 for each number
    assert barlow_twins(torch.ones(5, 3), torch.ones(5, 3), 1.0).item() == 3
    scaled = barlow_twins(walsh_BD * torch.tensor([1.0, 2.0, 3.0]) + 5, walsh_BD, 1.0)
    assert scaled.item() == pytest.approx(0, abs=1e-9)
    torch.manual_seed(0)
    noise_BD = torch.randn(6, 3)
    half = barlow_twins(noise_BD.bfloat16(), noise_BD.bfloat16(), 1.0)
    assert half.dtype == torch.float32


@pytest.mark.parametrize("more", [{}, {"ssl": True, "ssl_task": "rotate"}, {"simclr_loss_weight": 0.7}])
def test_gradients_are_those_of_the_sum_of_all_losses(more: dict[str, object]) -> None:
    """With other tasks, whose images stand in the same batch, as well; what they add is written out by hand."""
    settings = {"barlow_loss_weight": 0.3, "barlow_redundancy_weight": 0.1, **more}
    method, oracle, batch = make_method("dgl", **settings), make_method("dgl", **settings), make_batch()
    method.fill_grads(batch)
    turned_BCHW = torch.stack([torch.rot90(image, b % 4, (1, 2)) for b, image in enumerate(batch.x_BCHW)])
    h_BCHW = torch.cat([batch.x_BCHW, batch.second_BCHW, *([turned_BCHW] if "ssl" in more else [])])
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
        z_VD = oracle.barlow.heads[block_name(index)](features_BCHW[:12])
        total = total + 0.3 * by_loops(z_VD[:6], z_VD[6:], 0.1)
        if "ssl" in more:
            turns_B = torch.tensor([0, 1, 2, 3, 0, 1])
            total = total + 0.1 * F.cross_entropy(oracle.ssl.heads[block_name(index)](features_BCHW[12:]), turns_B)
        if "simclr_loss_weight" in more:
            total = total + 0.7 * simclr(oracle.simclr.heads[block_name(index)](features_BCHW[:12]), 0.5)
    total.backward()
    for key, gradient in gradients(oracle).items():
        # A bias in front of BatchNorm has a gradient of zero, and rounding in its place.
        torch.testing.assert_close(gradients(method)[key], gradient, rtol=1e-8, atol=1e-10, msg=key)
