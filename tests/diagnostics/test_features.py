"""Probes and similarities against other ways to compute them."""

from __future__ import annotations

import copy

import pytest
import torch

from datamodules.base import ImageSet
from datamodules.feed import Feed
from diagnostics.features import (
    block_features,
    centred_gram,
    gram_cka,
    labels,
    probe_accuracy,
    ridge_weights,
)
from tests.conftest import make_method, make_spec


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear_cka(x_PD: torch.Tensor, y_PE: torch.Tensor) -> float:
    return gram_cka(centred_gram(x_PD), centred_gram(y_PE))


def make_feed(count: int = 7, batch_size: int = 3) -> Feed:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (count, 8, 8, 3), generator=generator, dtype=torch.uint8)
    return Feed(ImageSet(pixels, torch.arange(count) % 5), make_spec(), batch_size, torch.device("cpu"))


@pytest.mark.parametrize("shape", [(30, 8), (8, 30)], ids=["tall", "wide"])
def test_ridge_is_the_least_squares_solution_of_the_stacked_system(shape: tuple[int, int]) -> None:
    x_PD, y_PN = random(*shape), random(shape[0], 3, seed=1)
    stacked = torch.cat([x_PD, 0.7**0.5 * torch.eye(shape[1], dtype=torch.float64)])
    targets = torch.cat([y_PN, torch.zeros(shape[1], 3, dtype=torch.float64)])
    expected = torch.linalg.lstsq(stacked, targets).solution
    torch.testing.assert_close(ridge_weights(x_PD, y_PN, 0.7), expected, rtol=1e-9, atol=1e-9)


def test_a_probe_separates_what_is_separable_and_guesses_what_is_not() -> None:
    y_P = torch.arange(600) % 3
    centres = torch.tensor([[5.0, 0.0], [0.0, 5.0], [-5.0, -5.0]], dtype=torch.float64)
    x_PD = centres[y_P] + 0.3 * random(600, 2)
    assert probe_accuracy(x_PD[:300], y_P[:300], x_PD[300:], y_P[300:], 3) == 100
    noise = random(600, 2, seed=3)
    assert 20 < probe_accuracy(noise[:300], y_P[:300], noise[300:], y_P[300:], 3) < 47


def test_a_probe_does_not_mind_scales_shifts_and_dead_features() -> None:
    y_P = torch.arange(200) % 4
    x_PD = random(200, 6) + 0.8 * torch.nn.functional.one_hot(y_P, 6)
    first = probe_accuracy(x_PD[:100], y_P[:100], x_PD[100:], y_P[100:], 4)
    scale = torch.tensor([1e-3, 1, 10, 1e3, 5, 7], dtype=torch.float64)
    moved = torch.cat([x_PD * scale - 4, torch.full((200, 1), 3.0)], 1)
    assert probe_accuracy(moved[:100], y_P[:100], moved[100:], y_P[100:], 4) == first
    assert 25 < first < 100


def test_cka_of_features_with_themselves_is_one_up_to_rotation_scale_and_shift() -> None:
    x_PD = random(40, 6)
    rotation = torch.linalg.qr(random(6, 6, seed=2)).Q
    assert linear_cka(x_PD, x_PD) == pytest.approx(1, abs=1e-12)
    assert linear_cka(x_PD, -3 * x_PD @ rotation + 5) == pytest.approx(1, abs=1e-12)
    assert linear_cka(x_PD, x_PD @ random(6, 6, seed=4)) < 0.99  # not to any linear map
    assert linear_cka(x_PD, torch.ones(40, 3)) == 0


def test_cka_is_that_of_the_definition_by_features() -> None:
    x_PD, y_PE = random(40, 6), random(40, 9, seed=1)
    x, y = x_PD - x_PD.mean(0), y_PE - y_PE.mean(0)
    expected = (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
    assert linear_cka(x_PD, y_PE) == pytest.approx(float(expected), rel=1e-12)


def test_features_are_those_of_the_evaluated_blocks_in_order() -> None:
    method, feed = make_method("dgl").float(), make_feed()
    before, state = torch.get_rng_state(), copy.deepcopy(method.state_dict())
    features = block_features(method, feed)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[name]) for name, value in method.state_dict().items())
    assert method.training and method.backbone.training
    backbone = copy.deepcopy(method.backbone).eval()
    h_BCHW = torch.cat([feed.batch(0, step).x_BCHW for step in range(3)])
    with torch.no_grad():
        for index, found_PD in enumerate(features):
            h_BCHW = backbone.block(index)(h_BCHW)
            torch.testing.assert_close(found_PD, h_BCHW.flatten(1))
    assert torch.equal(labels(feed), torch.arange(7) % 5)


def test_maps_are_averaged_to_the_side_that_is_asked_for() -> None:
    method, feed = make_method("dgl").float(), make_feed()
    whole, pooled = block_features(method, feed), block_features(method, feed, side=2)
    torch.testing.assert_close(pooled[0], torch.nn.functional.avg_pool2d(whole[0].view(7, 4, 4, 4), 2).flatten(1))
    torch.testing.assert_close(pooled[1], whole[1])  # 2x2 already
