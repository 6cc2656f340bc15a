"""Feedback alignment: with the forward weights as feedback it is back-propagation, bit for bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from methods._base import Method
from methods._transport import FeedbackConv2d, FeedbackLinear, add_feedback
from tests.conftest import gradients, make_batch, make_method

DEGREES = 180 / torch.pi


def layers(method: Method) -> list[nn.Module]:
    return [layer for layer in method.modules() if isinstance(layer, FeedbackConv2d | FeedbackLinear)]


def transport_weights(method: Method) -> None:
    for layer in layers(method):
        layer.B.copy_(layer.weight.detach())


def angle(a: torch.Tensor, b: torch.Tensor) -> float:
    """Degrees between two tensors."""
    return torch.arccos(nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)).item() * DEGREES


@pytest.mark.parametrize("first", [0, 1, -1])
def test_starts_from_the_network_of_back_propagation(first: int) -> None:
    method, whole = make_method("fa", first_trainable_block=first), make_method("bp", first_trainable_block=first)
    own = method.state_dict()
    for name, value in whole.state_dict().items():
        assert torch.equal(own.pop(name), value), name
    assert own and all(name.endswith(".B") for name in own)
    assert len(layers(method)) == 3 - first % 3 + 2  # the trainable blocks' and the two of the classifier


@pytest.mark.parametrize("first", [0, 1, 2])
def test_equals_back_propagation_with_the_forward_weights_as_feedback(first: int) -> None:
    method, whole = make_method("fa", first_trainable_block=first), make_method("bp", first_trainable_block=first)
    optimizers = [torch.optim.SGD(m.param_groups(), lr=0.05, momentum=0.9) for m in (method, whole)]
    for _ in range(3):
        transport_weights(method)
        for trained in (method, whole):
            trained.zero_grad()
            trained.fill_grads(make_batch())
        expected = gradients(whole)
        for name, gradient in gradients(method).items():
            assert gradient is None if expected[name] is None else torch.equal(gradient, expected[name]), name
        for optimizer in optimizers:
            optimizer.step()


def test_any_feedback_leaves_the_last_layer_to_the_true_gradient() -> None:
    method, whole = make_method("fa"), make_method("bp")
    for trained in (method, whole):
        trained.fill_grads(make_batch())
    expected = gradients(whole)
    for name, gradient in gradients(method).items():
        if name.endswith("features.0.bias"):
            continue  # zero up to rounding in both: batch normalisation takes the mean away
        assert torch.equal(gradient, expected[name]) == name.startswith("backbone.classifier.3."), name


def test_feedback_is_fixed_and_comes_back_with_the_state() -> None:
    torch.manual_seed(0)
    method = make_method("fa")
    before = [layer.B.clone() for layer in layers(method)]
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.05, momentum=0.9, weight_decay=0.1)
    for _ in range(5):
        method.fill_grads(make_batch())
        optimizer.step()
        optimizer.zero_grad()
    assert all(torch.equal(layer.B, feedback) for layer, feedback in zip(layers(method), before, strict=True))
    other = make_method("fa")
    for layer in layers(other):
        layer.B.zero_()
    other.load_state_dict(method.state_dict())
    for trained in (method, other):
        trained.fill_grads(make_batch())
    assert all(torch.equal(g, gradients(other)[name]) for name, g in gradients(method).items())


def test_a_copy_has_feedback_of_its_own() -> None:
    method = make_method("fa")
    twin = copy.deepcopy(method)
    for layer in layers(twin):
        layer.B.zero_()
    method.fill_grads(make_batch())
    twin.fill_grads(make_batch())
    assert gradients(method)["backbone.blocks.0.features.0.weight"].abs().max() > 0
    assert gradients(twin)["backbone.blocks.0.features.0.weight"].abs().max() == 0


@pytest.mark.parametrize("seed", range(3))
def test_forward_weights_turn_towards_the_feedback(seed: int) -> None:
    """A two-layer linear net on a linear task: the loss vanishes while the signal's angle to back-prop's falls."""
    torch.manual_seed(seed)
    lower, upper = nn.Linear(20, 15, bias=False).double(), nn.Linear(15, 5, bias=False).double()
    add_feedback(upper)
    x_BD, teacher = torch.randn(100, 20, dtype=torch.float64), torch.randn(20, 5, dtype=torch.float64)
    optimizer = torch.optim.SGD([*lower.parameters(), *upper.parameters()], lr=0.05)
    angles, losses = [], []
    for _ in range(1000):
        error = upper(lower(x_BD)) - x_BD @ teacher
        angles.append(angle(error.detach() @ upper.B, error.detach() @ upper.weight.detach()))
        optimizer.zero_grad()
        (0.5 * error.square().sum() / 100).backward()
        optimizer.step()
        losses.append(error.detach().square().mean().item())
    start, trained = angles[0], sum(angles[200:400]) / 200
    assert start > 75 > trained, (start, trained)
    assert losses[-1] < 1e-3 * losses[0]
