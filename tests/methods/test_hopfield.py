"""The Hopfield form of equilibrium propagation: its equilibrium, and the loss's gradient there as beta goes to 0."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cli
from datamodules.base import Batch
from layers.saved import SavedBytes
from methods._settle import Dynamics, SettlingBackbone
from model import Backbone, mlp
from tests.conftest import (
    assert_the_same_beside_its_copy,
    build,
    gradients,
    losses_of_training,
    make_batch,
    make_method,
    strided_backbone,
)
from utils import UsageError

SETTLED = {"free_steps": 200, "nudged_steps": 200}
HEBBIAN = {"nudging": "one_sided", "nudge": 1.0, "output_feedback": True}


def phi(backbone: SettlingBackbone, batch: Batch, states: list[Tensor], beta: float, feeds_back: bool) -> Tensor:
    """As the docstring has it."""
    below, total = batch.x_BCHW, torch.zeros((), dtype=torch.float64)
    for block, state in zip(backbone.blocks, states, strict=True):
        total, below = total + (state * block.pool(block.features[0](below))).sum(), state
    logits_BN = backbone.classifier(below)
    total = total - beta * F.cross_entropy(logits_BN, batch.y_B, reduction="sum")
    return total + logits_BN.exp().sum(1).log().sum() if feeds_back else total


def equilibrium(
    backbone: SettlingBackbone,
    beta: float = 0.0,
    feeds_back: bool = False,
    graph: bool = False,
    start: list[Tensor] | None = None,
) -> list[Tensor]:
    """All states at once and half of the way each time, not by the rule's sweeps; from the pass forward on."""
    states, below = list(start or ()), make_batch().x_BCHW
    for block in () if start else backbone.blocks:
        below = block(below).detach().requires_grad_()
        states.append(below)
    for _ in range(150):
        inputs = torch.autograd.grad(phi(backbone, make_batch(), states, beta, feeds_back), states, create_graph=graph)
        states = [(s + (u / 2).clamp(0, 1)) / 2 for s, u in zip(states, inputs, strict=True)]
        states = states if graph else [state.detach().requires_grad_() for state in states]
    return states


def with_linear_classifier() -> Backbone:
    """With hidden units, which are no states, the clamped phase need not come to rest."""
    torch.manual_seed(0)
    backbone = strided_backbone()
    return Backbone([*backbone.blocks], mlp(5, 5, 0, 0))


def filled(**settings: object) -> dict[str, Tensor]:
    method = make_method("hopfield", **SETTLED | settings)
    method.fill_grads(make_batch())
    return gradients(method)


def through_time(feeds_back: bool) -> dict[str, Tensor]:
    """The gradient of the loss at the free equilibrium, back through all of its iterations."""
    backbone = make_method("hopfield").backbone
    logits_BN = backbone.classifier(equilibrium(backbone, feeds_back=feeds_back, graph=True)[-1])
    F.cross_entropy(logits_BN, make_batch().y_B).backward()
    return {f"backbone.{name}": parameter.grad for name, parameter in backbone.named_parameters()}


def error(found: dict[str, Tensor], whole: dict[str, Tensor]) -> float:
    """The largest deviation, over the largest value of the same gradient."""
    assert found.keys() == whole.keys()
    return max(((found[key] - value).abs().max() / value.abs().max()).item() for key, value in whole.items())


@pytest.mark.parametrize("feeds_back", [False, True])
def test_a_small_nudge_is_the_gradient_at_the_equilibrium(feeds_back: bool) -> None:
    """The error halves with beta for one sign and quarters for both."""
    whole = through_time(feeds_back)
    for nudging, ratio in (("one_sided", 2), ("centred", 4)):
        settings = {"nudging": nudging, "output_feedback": feeds_back}
        errors = [error(filled(nudge=nudge, **settings), whole) for nudge in (0.01, 0.005, 0.0025)]
        for before, after in itertools.pairwise(errors):
            assert before / after == pytest.approx(ratio, rel=0.1)
        assert errors[-1] < 0.01


def test_a_short_nudged_phase_is_not_that_gradient() -> None:
    """So that the test above is about settling."""
    whole = through_time(False)
    assert error(filled(nudge=0.005, nudged_steps=1), whole) > 0.01


def test_the_loss_at_the_equilibrium_falls_as_the_gradient_says() -> None:
    """Central differences along the gradient itself."""
    method, batch = make_method("hopfield", nudge=1e-3, **SETTLED), make_batch()
    method.fill_grads(batch)
    slopes, step = [], 1e-5
    squared = sum((parameter.grad**2).sum() for parameter in method.parameters())
    for sign in (1, -1):
        moved = make_method("hopfield", **SETTLED)
        with torch.no_grad():
            for parameter, other in zip(method.parameters(), moved.parameters(), strict=True):
                other.add_(sign * step * parameter.grad)
            slopes.append(F.cross_entropy(moved(batch.x_BCHW), batch.y_B))
    assert ((slopes[0] - slopes[1]) / (2 * step)).item() == pytest.approx(squared.item(), rel=1e-4)


@pytest.mark.parametrize("rate", [1.0, 0.4])
@pytest.mark.parametrize("feeds_back", [False, True])
def test_free_states_are_where_every_state_is_what_its_inputs_ask_for(feeds_back: bool, rate: float) -> None:
    method, batch = make_method("hopfield", output_feedback=feeds_back, settle_rate=rate, **SETTLED), make_batch()
    dynamics = Dynamics(method.backbone, batch.x_BCHW)
    states, residual = dynamics.settle(dynamics.states, 200)
    for found, expected in zip(states, equilibrium(method.backbone, feeds_back=feeds_back), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)
    assert residual < 1e-10
    torch.testing.assert_close(method(batch.x_BCHW), method.backbone.classifier(states[-1]))
    with torch.inference_mode():
        assert method(batch.x_BCHW).shape == (6, 5)


@pytest.mark.parametrize("gain", [1.0, 3.0])
def test_no_sweep_raises_the_energy(gain: float) -> None:
    method, batch = make_method("hopfield", weight_gain=gain), make_batch()
    dynamics = Dynamics(method.backbone, batch.x_BCHW)
    states, energies = dynamics.states, []
    for _ in range(8):
        squares = sum(state.square().sum() for state in states)
        energies.append((squares - phi(method.backbone, batch, states, 0.0, False)).item())
        states, _ = dynamics.settle(states, 1)
    assert energies[0] > energies[-1] + 1e-3
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(energies))


def test_contrastive_hebbian_learning_compares_the_free_network_with_clamped_outputs() -> None:
    """Output units that are a softmax in the free phase, and the label itself in the other."""
    settings = SETTLED | HEBBIAN | {"weight_gain": 0.7}  # with larger weights some images have two equilibria
    method, other = (make_method("hopfield", with_linear_classifier(), **settings) for _ in range(2))
    method.fill_grads(make_batch())
    found, backbone, batch = gradients(method), other.backbone, make_batch()
    names, weights = zip(*backbone.named_parameters(), strict=True)
    total = [torch.zeros_like(weight) for weight in weights]
    free = equilibrium(backbone, feeds_back=True)
    for beta, sign in ((1.0, -1), (0.0, 1)):
        fixed = [state.detach() for state in equilibrium(backbone, beta, feeds_back=True, start=free)]
        value = phi(backbone, batch, fixed, 0.0, False)
        logits_BN = backbone.classifier(fixed[-1])
        outputs_BN = F.one_hot(batch.y_B, 5).double() if beta else logits_BN.softmax(1).detach()
        value = value + (outputs_BN * logits_BN).sum()
        for place, gradient in enumerate(torch.autograd.grad(value, weights)):
            total[place] += sign * gradient / 6
    for name, expected in zip(names, total, strict=True):
        torch.testing.assert_close(found[f"backbone.{name}"], expected, rtol=1e-7, atol=1e-9, msg=name)


@pytest.mark.parametrize("settings", [{}, {"nudging": "one_sided"}, HEBBIAN])
def test_the_loss_falls_on_a_fixed_batch(settings: dict[str, object]) -> None:
    losses = losses_of_training(make_method("hopfield", **settings), rate=0.2, steps=120)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("settings", [{}, HEBBIAN])
def test_the_nudge_is_in_units_of_one_images_loss(settings: dict[str, object]) -> None:
    assert_the_same_beside_its_copy(*(make_method("hopfield", **settings) for _ in range(2)))


def test_memory_is_that_of_one_block_whatever_the_steps() -> None:
    peaks = []
    for steps in (1, 9):
        method = make_method("hopfield", free_steps=steps, nudged_steps=steps)
        counter = SavedBytes(method.parameters())
        with counter.hooks:
            method.fill_grads(make_batch(num_images=32))
        peaks.append(counter.peak_bytes)
    assert peaks[0] == peaks[1]


def test_every_pass_of_a_step_has_one_dropout() -> None:
    method = make_method("hopfield", strided_backbone(dropout=0.5))
    dynamics = Dynamics(method.backbone, make_batch().x_BCHW)
    x, other = dynamics.states[0], Dynamics(method.backbone, make_batch().x_BCHW)
    assert torch.equal(dynamics.run(1, x), dynamics.run(1, x))
    assert not torch.equal(dynamics.run(1, x), other.run(1, x))


def test_the_gain_is_that_of_the_blocks_that_learn() -> None:
    plain, wide = strided_backbone(), make_method("hopfield", weight_gain=3.0, first_trainable_block=1).backbone
    torch.manual_seed(0)
    plain = strided_backbone()
    for index in range(3):
        factor = 3 * 3**0.5 if index else 1.0
        own, first = wide.block(index).features[0].weight, plain.block(index).features[0].weight
        torch.testing.assert_close(own, factor * first.double(), rtol=1e-6, atol=0)
    assert isinstance(wide.block(0).features[1], nn.BatchNorm2d) and len(wide.block(1).features) == 2


def test_blocks_that_cannot_settle_are_one_line() -> None:
    with pytest.raises(UsageError, match=r"block_01 \(Residual\) is not a convolution with its activation") as refusal:
        make_method("hopfield", build("ResNet20"), 32)
    assert "\n" not in str(refusal.value) and refusal.value.exit_code == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--free_steps 0", "1 or more|at least 1"),
        ("--settle_rate 2", "allowed is"),
        ("--nudge 0", "allowed is"),
        ("--weight_gain 0", "allowed is"),
        ("--inference_steps 3", "belongs to"),
        ("--init_from somewhere", "no BatchNorm"),
        ("--diagnostics alignment", "no network that settles"),
        ("--compile", "one by one"),
    ],
)
def test_what_has_no_effect_or_no_place_is_one_line(words: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refusal:
        cli.parse(["--hopfield", *words.split()])
    assert "\n" not in str(refusal.value) and refusal.value.exit_code == 2
