"""Predictive coding: back-propagation where the theory says so, another rule at the equilibrium."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cli
from layers.normalisation import untracked
from layers.saved import SavedBytes
from methods._relax import Chain, RelaxMethod
from model import Backbone
from tests.conftest import assert_the_same_beside_its_copy, gradients, make_batch, make_method, strided_backbone
from utils import UsageError

ALL = ["error", "state", "zil", "fixed"]


def plain(dropout: float = 0.0) -> Backbone:
    torch.manual_seed(0)
    return strided_backbone(dropout)


def smooth() -> Backbone:
    backbone = plain()
    for block in backbone.blocks:
        block.features[2] = nn.Tanh()
    backbone.classifier[2] = nn.Tanh()
    return backbone


def gentle() -> Backbone:
    """Without normalisation and kinks: states and errors come to rest."""
    backbone = smooth()
    for block in backbone.blocks:
        block.features[1] = nn.Identity()
        block.pool = nn.Identity() if isinstance(block.pool, nn.Identity) else nn.AvgPool2d(2)
    return backbone


def errors(network: Callable[[], Backbone] = plain, **settings: object) -> dict[str, float]:
    """By block and for the classifier, how far a gradient is from back-propagation's, over that one's largest value."""
    method, whole, worst = make_method("pc", network(), **settings), make_method("bp", network()), {}
    for trained in (method, whole):
        torch.manual_seed(2)  # of dropout
        trained.fill_grads(make_batch())
    found = gradients(method)
    for key, gradient in gradients(whole).items():
        part = key.split(".")[2] if "blocks" in key else "classifier"
        if not key.endswith("features.0.bias"):  # zero up to rounding: BatchNorm takes the mean away
            far = ((found[key] - gradient).abs().max() / gradient.abs().max()).item()
            worst[part] = max(worst.get(part, 0.0), far)
    return worst


def relaxed(method: RelaxMethod) -> tuple[Chain, list[Tensor], list[Tensor]]:
    """A batch's chain, and states and errors of its blocks after a relaxation."""
    chain = Chain(method, make_batch())
    with untracked(method):
        settled = method.relax(chain, 1.0)
    return chain, settled.inputs[1:], settled.errors


@pytest.mark.parametrize("network", [plain, smooth])
@pytest.mark.parametrize("settings", [{"inference": "zil"}, {"inference": "fixed", "inference_steps": 3}])
def test_the_limits_are_back_propagation(network: Callable[[], Backbone], settings: dict[str, object]) -> None:
    """Also with BatchNorm in training, pools and a stride."""
    assert max(errors(network, inference_rate=1.0, **settings).values()) < 1e-12


@pytest.mark.parametrize("settings", [{"inference": "zil"}, {"inference": "fixed", "inference_steps": 7}])
def test_every_pass_of_a_step_has_one_dropout(settings: dict[str, object]) -> None:
    assert max(errors(lambda: plain(dropout=0.5), inference_rate=1.0, **settings).values()) < 1e-12


def test_zil_is_the_one_step_of_states_at_which_a_blocks_error_arrives() -> None:
    """All states move at every step; a block's gradient is taken once, as many steps on as it lies below the loss."""
    method, batch = make_method("pc", inference="zil"), make_batch()
    twin = make_method("pc", inference="zil").backbone
    method.fill_grads(batch)
    found = gradients(method)
    states = [batch.x_BCHW]
    for block in twin.blocks:
        states.append(block(states[-1]).detach())
    for step in range(1, 4):
        leaves = [state.detach().requires_grad_() for state in states]
        energy = F.cross_entropy(twin.classifier(leaves[-1]), batch.y_B, reduction="sum")
        for place, block in enumerate(twin.blocks):
            energy = energy + (leaves[place + 1] - block(leaves[place])).square().sum() / 2
        moves = torch.autograd.grad(energy, leaves[1:])
        states = [batch.x_BCHW, *(leaf.detach() - move for leaf, move in zip(leaves[1:], moves, strict=True))]
        index = 3 - step
        error = (states[index + 1] - twin.block(index)(states[index])).square().sum() / 2
        for name, parameter in twin.block(index).named_parameters():
            (expected,) = torch.autograd.grad(error / 6, parameter, retain_graph=True)
            key = f"backbone.blocks.{index}.{name}"
            torch.testing.assert_close(found[key], expected, rtol=1e-9, atol=1e-13, msg=key)


@pytest.mark.parametrize("sweeps", [1, 2])
def test_a_sweep_with_fixed_predictions_brings_the_error_one_block_down(sweeps: int) -> None:
    settings = {"inference": "fixed", "inference_rate": 1.0, "inference_steps": sweeps}
    found = errors(**settings)
    assert all(found[str(index)] < 1e-12 for index in range(3 - sweeps, 3)) and found["classifier"] < 1e-12
    method = make_method("pc", **settings)
    method.fill_grads(make_batch())
    for index in range(3 - sweeps):
        assert not any(parameter.grad.any() for parameter in method.backbone.block(index).parameters())


@pytest.mark.parametrize("rate", [0.3, 0.01])
def test_one_move_of_errors_is_the_gradient(rate: float) -> None:
    method = make_method("pc", inference_steps=1, inference_rate=rate)
    batch, h_BCHW, outputs = make_batch(), make_batch().x_BCHW, []
    for block in method.backbone.blocks:
        h_BCHW = block(h_BCHW)
        outputs.append(h_BCHW)
    loss = F.cross_entropy(method.backbone.classifier(h_BCHW), batch.y_B, reduction="sum")
    signals = torch.autograd.grad(loss, outputs)
    for error, signal in zip(relaxed(method)[2], signals, strict=True):
        torch.testing.assert_close(error, -rate * signal, rtol=0, atol=1e-14)
    assert errors(inference_steps=1, inference_rate=rate)["0"] < 1e-11  # its input did not move


def test_the_input_of_the_blocks_above_moves_by_the_rate() -> None:
    far = [errors(smooth, inference_steps=1, inference_rate=rate) for rate in (1e-2, 1e-3, 1e-4)]
    for part in ("1", "2", "classifier"):
        for before, after in itertools.pairwise(each[part] for each in far):
            assert before / after == pytest.approx(10, rel=0.1)


def test_the_released_setting_is_near_back_propagation() -> None:
    """Five moves by 0.001; the classifier learns in the same unit as the blocks."""
    assert max(errors(inference_steps=5, inference_rate=0.001).values()) < 0.02


@pytest.mark.parametrize("inference", ["error", "state"])
def test_the_gradient_is_that_of_the_energy_in_the_weights(inference: str) -> None:
    settings = {"inference": inference, "inference_steps": 6, "inference_rate": 0.05}
    method, batch = make_method("pc", smooth(), **settings), make_batch()
    output = method.fill_grads(batch)
    chain, states, eps = relaxed(make_method("pc", smooth(), **settings))
    twin = make_method("pc", smooth(), **settings).backbone
    inputs, local = [batch.x_BCHW, *states], []
    for place, block in enumerate(twin.blocks):
        local.append((states[place] - block(inputs[place])).square().sum() / 2)
    loss = F.cross_entropy(twin.classifier(states[-1]), batch.y_B)
    (sum(local) / (6 * (1 - 0.95**6)) + loss).backward()
    for key, gradient in gradients(method).items():
        expected = dict(twin.named_parameters())[key.removeprefix("backbone.")].grad
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-13, msg=key)
    # The energy, from states and from errors.
    for place, energy in enumerate(local):
        torch.testing.assert_close(eps[place].square().sum() / 2, energy.detach(), rtol=1e-12, atol=0)
        torch.testing.assert_close(output.metrics[f"block_0{place}/energy"], energy.detach() / 6)
    assert sum(local) / 6 + loss < chain.loss


def test_states_and_errors_have_one_equilibrium_which_is_not_back_propagation() -> None:
    found = []
    for inference, rate, steps in (("state", 0.4, 250), ("error", 0.6, 80)):
        method = make_method("pc", gentle(), inference=inference, inference_steps=steps, inference_rate=rate)
        metrics = method.fill_grads(make_batch()).metrics
        assert metrics["residual"] < 1e-9 and metrics["iterations"] == steps
        found.append(gradients(method))
    for key, gradient in found[0].items():
        torch.testing.assert_close(found[1][key], gradient, rtol=1e-8, atol=1e-12, msg=key)
    assert all(far > 0.01 for far in errors(gentle, inference_steps=80, inference_rate=0.6).values())


def test_the_residual_is_the_energys_gradient_over_the_errors() -> None:
    method = make_method("pc", smooth(), inference_steps=3)
    residual = method.fill_grads(make_batch()).metrics["residual"]
    chain, _, eps = relaxed(method)
    with untracked(method):
        pulled = chain.pull(eps, 1.0)
    off = sum((error + pull).square().sum() for error, pull in zip(eps, pulled, strict=True))
    torch.testing.assert_close(residual, (off / sum(error.square().sum() for error in eps)).sqrt())


@pytest.mark.parametrize("inference", ALL)
def test_an_images_states_do_not_depend_on_the_size_of_the_batch(inference: str) -> None:
    single, double = (make_method("pc", smooth(), inference=inference) for _ in range(2))
    assert_the_same_beside_its_copy(single, double)


def test_with_one_block_states_and_errors_are_the_same() -> None:
    found = []
    for inference in ("state", "error"):
        method = make_method("pc", inference=inference, inference_rate=0.1, first_trainable_block=-1)
        method.fill_grads(make_batch())
        found.append(gradients(method))
    for key, gradient in found[0].items():
        if gradient is not None:
            torch.testing.assert_close(found[1][key], gradient, rtol=1e-9, atol=1e-13, msg=key)


@pytest.mark.parametrize("inference", ALL)
def test_running_statistics_are_those_of_the_forward_pass(inference: str) -> None:
    method, whole = make_method("pc", inference=inference), make_method("bp")
    for trained in (method, whole):
        trained.fill_grads(make_batch())
    for key, value in whole.state_dict().items():
        assert torch.equal(method.state_dict()[key], value), key


@pytest.mark.parametrize("inference", ["error", "state", "fixed"])
def test_memory_is_that_of_one_iteration(inference: str) -> None:
    peaks = []
    for name, settings in (("bp", {}), *(("pc", {"inference": inference, "inference_steps": n}) for n in (1, 9))):
        method = make_method(name, **settings)
        counter = SavedBytes(method.parameters())
        with counter.hooks:
            method.fill_grads(make_batch(num_images=32))
        peaks.append(counter.peak_bytes)
    assert peaks[1] == peaks[2]
    assert peaks[2] < (1.01 if inference == "error" else 0.9) * peaks[0]  # states: one block's graph at a time


@pytest.mark.parametrize("rate", [0.05, 1.0])
def test_an_energy_that_rises_is_infinite_in_one_block(rate: float) -> None:
    """States of a network with BatchNorm bear short moves only."""
    method = make_method("pc", plain(), inference="state", inference_steps=20, inference_rate=rate)
    metrics = method.fill_grads(make_batch()).metrics
    energies = torch.stack([metrics[f"block_0{index}/energy"] for index in range(3)])
    assert energies.isinf().sum() == (rate == 1.0)


@pytest.mark.parametrize("words", ["--inference_steps 0", "--inference_rate 0", "--inference_rate 2", "--inference a"])
def test_what_is_out_of_range_is_one_line(words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        cli.parse(["--pc", *words.split()])
    assert "\n" not in str(refusal.value) and refusal.value.exit_code == 2
