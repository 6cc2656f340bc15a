"""Equilibrium propagation: back-propagation to the order in beta that theory says; exactly where nothing bends."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cli
from layers.normalisation import untracked
from layers.saved import SavedBytes
from methods._relax import Chain
from model import Backbone
from tests.conftest import assert_the_same_beside_its_copy, gradients, make_batch, make_method, strided_backbone
from utils import UsageError

NUDGINGS = ["centred", "one_sided", "random_sign"]


def plain() -> Backbone:
    torch.manual_seed(0)
    return strided_backbone()


def smooth() -> Backbone:
    backbone = plain()
    for block in backbone.blocks:
        block.features[2] = nn.Tanh()
        block.pool = nn.Identity() if isinstance(block.pool, nn.Identity) else nn.AvgPool2d(2)
    backbone.classifier[2] = nn.Tanh()
    return backbone


def filled(backbone: Backbone, **settings: object) -> dict[str, Tensor]:
    """The gradients, but for biases that BatchNorm takes away."""
    method = make_method("ep" if settings else "bp", backbone, **settings)
    torch.manual_seed(1)  # of signs
    method.fill_grads(make_batch())
    return {key: value for key, value in gradients(method).items() if not key.endswith("features.0.bias")}


def error(found: dict[str, Tensor], whole: dict[str, Tensor]) -> float:
    """The largest deviation from back-propagation's gradient, over that gradient's largest value."""
    return max(((found[key] - value).abs().max() / value.abs().max()).item() for key, value in whole.items())


@pytest.mark.parametrize(("nudging", "ratio"), [("one_sided", 2), ("random_sign", 2), ("centred", 4)])
@pytest.mark.parametrize(("steps", "rate"), [(12, 0.8), (3, 0.3)])
def test_the_error_falls_with_the_order_of_the_nudging(nudging: str, ratio: int, steps: int, rate: float) -> None:
    """At the equilibrium and before: the share of the way that a few moves come is divided out."""
    whole, settings = filled(smooth()), {"nudging": nudging, "inference_steps": steps, "inference_rate": rate}
    errors = [error(filled(smooth(), nudge=nudge, **settings), whole) for nudge in (4e-3, 2e-3, 1e-3)]
    for before, after in itertools.pairwise(errors):
        assert before / after == pytest.approx(ratio, rel=0.15)


def chosen(x_BCHW: Tensor) -> Tensor:
    """Which value of each window a 2x2 max-pool takes."""
    return F.max_pool2d(x_BCHW, 2, return_indices=True)[1]


def patterns(units: list[nn.Module], inputs: list[Tensor]) -> list[Tensor]:
    """Which units are above zero, and which each pool chooses, with every part of the chain at its own input."""
    seen: list[Tensor] = []
    hooks = []
    for layer in (layer for unit in units for layer in unit.modules()):
        if isinstance(layer, nn.ReLU):
            hooks.append(layer.register_forward_hook(lambda layer, args, out: seen.append(out > 0)))
        elif isinstance(layer, nn.MaxPool2d):
            hooks.append(layer.register_forward_hook(lambda layer, args, out: seen.append(chosen(args[0]))))
    with torch.no_grad():
        for unit, x in zip(units, inputs, strict=True):
            unit(x)
    for hook in hooks:
        hook.remove()
    return seen


def flips(**settings: object) -> int:
    """How many of them are not as in the forward pass, where a relaxation with either sign of beta ends."""
    method = make_method("ep", plain(), **settings)
    chain, count = Chain(method, make_batch()), 0
    with untracked(method):
        before = patterns(chain.units, [chain.x_BCHW, *chain.outputs])
        for nudge, _ in method.nudges(chain.batch):
            after = patterns(chain.units, method.relax(chain, nudge).inputs)
            count += sum(int((old != new).sum()) for old, new in zip(before, after, strict=True))
    assert len(before) == 6
    return count


@pytest.mark.parametrize("steps", [1, 4, 20])
def test_where_no_unit_crosses_a_kink_the_centred_rule_is_back_propagation(steps: int) -> None:
    """ReLU, max-pools and BatchNorm in training; what is left is of the order of beta^2, and rounding over beta."""
    settings = {"nudge": 1e-4, "inference_steps": steps, "inference_rate": 1.0}
    assert flips(**settings) == 0
    assert error(filled(plain(), **settings), filled(plain())) < 1e-6


def test_a_large_nudge_moves_units_across_kinks() -> None:
    """So that the test above is about their absence."""
    settings = {"nudge": 1.0, "inference_steps": 20, "inference_rate": 0.1}
    assert flips(**settings) > 0
    assert error(filled(plain(), **settings), filled(plain())) > 1e-2


def test_the_nudge_is_in_units_of_one_images_loss() -> None:
    single, double = (make_method("ep", smooth(), nudge=0.5) for _ in range(2))
    assert_the_same_beside_its_copy(single, double)


def test_the_nudge_of_1_is_predictive_coding() -> None:
    settings = {"inference_steps": 5, "inference_rate": 0.03}
    method, other = make_method("ep", nudge=1.0, nudging="one_sided", **settings), make_method("pc", **settings)
    for trained in (method, other):
        trained.fill_grads(make_batch())
    for key, gradient in gradients(other).items():
        assert torch.equal(gradients(method)[key], gradient), key


def test_the_gradient_is_the_difference_of_the_energys_gradients_over_2_beta() -> None:
    """As in a plain loop over both signs, at the equilibrium."""
    beta, batch, twin = 0.05, make_batch(), make_method("ep", smooth()).backbone
    names, weights = zip(*twin.named_parameters(), strict=True)
    total = [torch.zeros_like(weight) for weight in weights]
    for sign in (1, -1):
        eps = [torch.zeros(6, *shape, dtype=torch.float64, requires_grad=True) for shape in twin.out_shapes]
        for step in range(41):
            states = [batch.x_BCHW]
            for block, error_BCHW in zip(twin.blocks, eps, strict=True):
                states.append(block(states[-1]) + error_BCHW)
            loss = F.cross_entropy(twin.classifier(states[-1]), batch.y_B, reduction="sum")
            energy = sum(each.square().sum() / 2 for each in eps) + sign * beta * loss
            if step == 40:
                break
            moves = torch.autograd.grad(energy, eps)
            eps = [(e - 0.8 * move).detach().requires_grad_() for e, move in zip(eps, moves, strict=True)]
        fixed = [state.detach() for state in states]
        local = sum(
            (s - block(x)).square().sum() / 2 for block, x, s in zip(twin.blocks, fixed[:-1], fixed[1:], strict=True)
        )
        local = local + sign * beta * F.cross_entropy(twin.classifier(fixed[-1]), batch.y_B, reduction="sum")
        for place, gradient in enumerate(torch.autograd.grad(local, weights)):
            total[place] += sign * gradient / (2 * beta * 6)
    found = filled(smooth(), nudge=beta, inference_steps=40, inference_rate=0.8)
    for name, expected in zip(names, total, strict=True):
        if (key := f"backbone.{name}") in found:
            torch.testing.assert_close(found[key], expected, rtol=1e-8, atol=1e-11, msg=key)


def test_a_random_sign_is_one_for_the_whole_batch_and_both_come() -> None:
    method, batch = make_method("ep", nudging="random_sign", nudge=0.3), make_batch()
    generator = torch.Generator().manual_seed(0)
    drawn = {float(method.nudges(batch._replace(generator=generator))[0][0]) for _ in range(20)}
    assert drawn == {0.3, -0.3}


@pytest.mark.parametrize("nudging", NUDGINGS)
def test_memory_is_that_of_one_iteration_and_statistics_move_once(nudging: str) -> None:
    peaks, states = [], []
    for name, settings in (("bp", {}), *(("ep", {"nudging": nudging, "inference_steps": n}) for n in (1, 9))):
        method = make_method(name, plain(), **settings)
        counter = SavedBytes(method.parameters())
        with counter.hooks:
            method.fill_grads(make_batch(num_images=32))
        peaks.append(counter.peak_bytes)
        states.append(method.state_dict())
    for key, value in states[0].items():
        assert torch.equal(states[1][key], value) and torch.equal(states[2][key], value), key
    assert peaks[1] == peaks[2] < 1.01 * peaks[0]


@pytest.mark.parametrize("words", ["--nudge 0", "--nudge -1", "--inference_steps 0", "--inference_rate 2"])
def test_what_is_out_of_range_is_one_line(words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        cli.parse(["--ep", *words.split()])
    assert "\n" not in str(refusal.value) and refusal.value.exit_code == 2
