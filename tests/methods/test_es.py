"""Evolution strategies: exact on quadratics, back-propagation where every weight is moved, else plain loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

import cli
from layers.saved import SavedBytes
from methods import es
from methods.es import EvolutionStrategies, estimate, low_rank
from model import Backbone
from tests.conftest import gradients, losses_of_training, make_batch, make_method
from tests.methods.test_fg import small
from utils import UsageError


def make(backbone: Backbone | None = None, **settings: object) -> EvolutionStrategies:
    method = make_method("es", backbone, **settings)
    assert isinstance(method, EvolutionStrategies)
    return method


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


CURVATURE, SLOPE, PLACE = drawn(5, 5), drawn(5, seed=2), drawn(5, seed=3)
GRADIENT = (CURVATURE + CURVATURE.t()) @ PLACE + SLOPE


def quadratic(w: Tensor) -> Tensor:
    return w @ CURVATURE @ w + SLOPE @ w


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_on_a_quadratic_two_sides_give_the_slope_whatever_the_scale(scale: float) -> None:
    moves = [*drawn(7, 5, seed=4)]
    found = estimate(quadratic, PLACE, moves, scale)
    expected = sum((GRADIENT @ move) * move for move in moves) / 7
    torch.testing.assert_close(found.gradient_W, expected, rtol=1e-8, atol=1e-8)


def test_along_a_basis_and_over_all_signs_it_is_the_gradient() -> None:
    for moves in (
        math.sqrt(5) * torch.eye(5).double(),
        torch.tensor([*itertools.product((-1.0, 1.0), repeat=5)]).double(),
    ):
        torch.testing.assert_close(estimate(quadratic, PLACE, [*moves], 0.1).gradient_W, GRADIENT)


def test_over_all_signs_moves_of_rank_one_give_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    slope_OI, weight = drawn(2, 3), nn.Parameter(drawn(2, 3, seed=5))
    signs = [torch.tensor(each, dtype=torch.float64) for each in itertools.product((-1.0, 1.0), repeat=5)]
    draws = iter([part for each in signs for part in (each[:2].view(2, 1), each[2:].view(1, 3))])
    monkeypatch.setattr(es, "normal", lambda shape, like, batch: next(draws).expand(shape))
    moves = (low_rank(weight, 1, make_batch()).flatten() for _ in signs)
    found = estimate(lambda w: (slope_OI * w.view(2, 3)).sum(), weight.detach().flatten(), moves, 0.1)
    torch.testing.assert_close(found.gradient_W.view(2, 3), slope_OI)


@pytest.mark.parametrize("rank", [1, 4])
def test_moves_of_low_rank_have_the_variance_of_normal_ones(rank: int) -> None:
    kernel, batch = torch.zeros(6, 2, 3, 3, dtype=torch.float64), make_batch()._replace(generator=torch.Generator())
    moves = torch.stack([low_rank(kernel, rank, batch) for _ in range(2000)])
    assert moves.square().mean().item() == pytest.approx(1, rel=0.05)
    assert torch.linalg.matrix_rank(moves[0].flatten(1)) == rank
    assert low_rank(kernel[:, 0, 0, 0], rank, batch).shape == (6,)


def smooth() -> Backbone:
    backbone = small()
    for block in backbone.blocks:
        block.features[2], block.pool = nn.Tanh(), nn.AvgPool2d(2)
    return backbone


def test_every_weight_by_itself_is_back_propagation_to_the_square_of_the_scale() -> None:
    """BatchNorm in training; central differences are off by the third derivative."""
    whole = make_method("bp", smooth())
    whole.fill_grads(make_batch())
    true = torch.cat([parameter.grad.flatten() for parameter in whole.backbone.parameters()])
    errors = []
    for scale in (0.02, 0.01):
        method = make(smooth(), noise="coordinate", noise_scale=scale, population=10000)
        output = method.fill_grads(make_batch())
        found = torch.cat([gradients(method)[name].flatten() for name, _ in whole.named_parameters()])
        errors.append(((found - true).norm() / true.norm()).item())
        assert output.metrics["noise"] == 0
    assert errors[1] < 1e-3 and errors[0] / errors[1] == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("noise", ["normal", "low_rank", "coordinate"])
def test_as_in_a_plain_loop(noise: str) -> None:
    """The weights moved in place, the mean over pairs, and how much the pairs differ."""
    settings = {"noise": noise, "population": 6, "noise_scale": 0.05, "noise_rank": 2}
    method, batch = make(**settings), make_batch()
    output = method.fill_grads(batch._replace(generator=torch.Generator().manual_seed(5)))
    plain, weights = make(**settings), [*method.rest.parameters()]
    again = batch._replace(generator=torch.Generator().manual_seed(5))
    count = sum(weight.numel() for weight in weights)
    moves = [*plain.moves(torch.zeros(count, dtype=torch.float64), again)]
    assert len(moves) == 3
    terms = []
    own = [*plain.rest.parameters()]
    with torch.no_grad():
        for move in moves:
            parts = [part.view_as(w) for part, w in zip(move.split([w.numel() for w in own]), own, strict=True)]
            losses = []
            for step in (0.05, -0.1):
                for weight, part in zip(own, parts, strict=True):
                    weight += step * part
                losses.append(nn.functional.cross_entropy(plain.rest(batch.x_BCHW), batch.y_B))
            for weight, part in zip(own, parts, strict=True):
                weight += 0.05 * part
            terms.append((losses[0] - losses[1]) / 0.1 * move * (count if noise == "coordinate" else 1))
    mean = sum(terms) / 3
    torch.testing.assert_close(torch.cat([weight.grad.flatten() for weight in weights]), mean)
    variance = sum((term - mean).square().sum() for term in terms) / 2 / 3
    variance *= 1 - 3 / count if noise == "coordinate" else 1
    torch.testing.assert_close(output.metrics["noise"], variance / mean.square().sum())


def test_the_variance_grows_with_the_number_of_weights() -> None:
    """Of a linear loss; (n + 1) / pairs times the squared length of the gradient, so that its share is near 1."""
    for count in (4, 64):
        slope, generator = drawn(count), torch.Generator().manual_seed(2)
        estimates = []
        for _ in range(400):
            moves = [torch.randn(count, generator=generator, dtype=torch.float64) for _ in range(8)]
            estimates.append(estimate(lambda w, slope=slope: slope @ w, torch.zeros_like(slope), moves, 0.1))
        spread = sum((each.gradient_W - slope).square().sum() for each in estimates) / 400
        assert (spread / slope.square().sum()).item() == pytest.approx((count + 1) / 8, rel=0.15)
        shares = sum(each.noise * each.gradient_W.square().sum() for each in estimates) / 400
        assert shares.item() == pytest.approx(spread.item(), rel=0.15)


def test_a_share_of_the_noise_lies_in_the_span_of_the_last_estimates() -> None:
    method, batch = make(subspace=2, subspace_share=0.8), make_batch()._replace(generator=torch.Generator())
    count = method.running_estimates_KW.shape[1]
    rows = drawn(2, count)
    method.running_estimates_KW.copy_(rows)
    moves = torch.stack([move for _ in range(60) for move in method.moves(rows[0], batch)])
    inside = moves @ torch.linalg.qr(rows.t())[0]
    assert moves.square().sum(1).mean().item() == pytest.approx(count, rel=0.1)
    expected = 0.8 * count + 0.2 * 2
    assert inside.square().sum(1).mean().item() == pytest.approx(expected, rel=0.15)


def test_the_last_estimates_are_kept_and_resumed() -> None:
    method, batch = make(subspace=2), make_batch()
    found = []
    for seed in range(3):
        method.zero_grad()
        method.fill_grads(batch._replace(generator=torch.Generator().manual_seed(seed)))
        found.append(torch.cat([weight.grad.flatten() for weight in method.weights]))
    assert torch.equal(method.running_estimates_KW, torch.stack(found[1:]))
    other = make(subspace=2)
    other.load_state_dict(method.state_dict())
    for each in (method, other):
        each.zero_grad()
        each.fill_grads(batch._replace(generator=torch.Generator().manual_seed(9)))
    for name, gradient in gradients(method).items():
        assert torch.equal(gradients(other)[name], gradient)


def test_one_pair_says_nothing_of_its_noise() -> None:
    assert not make(population=2).fill_grads(make_batch()).metrics


def test_running_statistics_are_those_of_the_forward_pass_and_nothing_is_kept() -> None:
    method, whole = make(), make_method("bp")
    counter = SavedBytes(method.parameters())
    with counter.hooks:
        method.fill_grads(make_batch())
    assert counter.peak_bytes == 0
    whole.fill_grads(make_batch())
    for key, value in whole.state_dict().items():
        assert torch.equal(method.state_dict()[key], value), key


@pytest.mark.parametrize("case", ["es", "es low_rank", "es coordinate", "es subspace"])
def test_loss_falls_on_a_fixed_batch(case: str) -> None:
    torch.manual_seed(0)
    losses = losses_of_training(make_method(case, small()), 0.01, 60)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    "words",
    ["--population 1", "--population 0", "--population 7", "--noise_scale 0", "--noise_rank 2",
     "--subspace_share 0.3", "--subspace 2 --subspace_share 1.1",
     "--noise low_rank --subspace 2", "--compile", "--noise uniform"],
)  # fmt: skip
def test_what_is_out_of_range_or_without_effect_is_one_line(words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        cli.parse(["--es", *words.split()])
    assert "\n" not in str(refusal.value) and refusal.value.exit_code == 2


def test_without_estimates_the_noise_lies_in_no_span() -> None:
    method, batch = make_method("es", subspace=3, subspace_share=1.0), make_batch()
    count = sum(weight.numel() for weight in method.weights)
    like_W = torch.zeros(count, dtype=torch.float64)
    for move_W in method.moves(like_W, batch):
        assert (move_W != 0).all() and move_W.std().item() == pytest.approx(1, rel=0.2)
    estimate_W = torch.randn(count, dtype=torch.float64)
    method.running_estimates_KW[-1] = estimate_W
    for move_W in method.moves(like_W, batch):  # all in the one direction that is there, and as long on average
        assert torch.linalg.matrix_rank(torch.stack([move_W, estimate_W]), rtol=1e-9) == 1
