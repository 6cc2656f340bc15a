"""Linear evaluation is the probe of every block, fitted from sums."""

from __future__ import annotations

import copy

import pytest
import torch

from datamodules.base import ImageSet
from datamodules.feed import Feed
from diagnostics.features import PROBE_SIDE, block_features, labels, probe_accuracy
from studies.linear import RidgeSums, linear_accuracies
from tests.conftest import make_method, make_spec


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_feed(count: int, seed: int) -> Feed:
    generator = torch.Generator().manual_seed(seed)
    y_P = torch.randint(5, (count,), generator=generator)
    pixels = torch.randint(180, (count, 8, 8, 3), generator=generator, dtype=torch.uint8)
    pixels[torch.arange(count), y_P] += 40  # a brighter row tells the class
    return Feed(ImageSet(pixels, y_P), make_spec(), 32, torch.device("cpu"))


@pytest.mark.parametrize("shift", [0.0, 1e4])
@pytest.mark.parametrize("shape", [(60, 8), (20, 30)], ids=["tall", "wide"])
def test_the_classifier_is_the_minimiser_of_ridge_regression(shape: tuple[int, int], shift: float) -> None:
    x_PD, y_P = random(*shape) * torch.logspace(-1, 1, shape[1]) + shift, torch.arange(shape[0]) % 3
    x_PD[:, 0] = 4  # dead
    sums = RidgeSums(x_PD[:7], 3)
    for part in (slice(0, 7), slice(7, None)):
        sums.add(x_PD[part], y_P[part])
    weights_DN, bias_N = sums.classifier()
    std_D = x_PD.std(0, correction=0)
    unit_PD = torch.where(std_D > 0, (x_PD - x_PD.mean(0)) / std_D, 0)
    y_PN = torch.nn.functional.one_hot(y_P, 3).double()
    stacked = torch.cat([unit_PD, (0.01 * shape[0]) ** 0.5 * torch.eye(shape[1], dtype=torch.float64)])
    targets = torch.cat([y_PN - y_PN.mean(0), torch.zeros(shape[1], 3, dtype=torch.float64)])
    expected_PN = unit_PD @ torch.linalg.lstsq(stacked, targets).solution + y_PN.mean(0)
    torch.testing.assert_close(x_PD @ weights_DN + bias_N, expected_PN, rtol=1e-6, atol=1e-7)
    assert not weights_DN[0].any()


def test_every_block_gets_the_accuracy_of_its_probe() -> None:
    method, fit, held = make_method("dgl").float(), make_feed(150, 1), make_feed(90, 2)
    before, state, steps = torch.get_rng_state(), copy.deepcopy(method.state_dict()), []
    found = linear_accuracies(method, fit, held, 5, lambda: steps.append(1))
    assert torch.equal(torch.get_rng_state(), before) and method.training
    assert all(torch.equal(value, state[name]) for name, value in method.state_dict().items())
    assert len(steps) == fit.num_steps + held.num_steps
    features = [block_features(method, feed, PROBE_SIDE) for feed in (fit, held)]
    expected = [probe_accuracy(one, labels(fit), two, labels(held), 5) for one, two in zip(*features, strict=True)]
    assert found[1:] == pytest.approx(expected, abs=1e-9)
    assert len(found) == 4 and found[0] > 25 and max(expected) < 100
