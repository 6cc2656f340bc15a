"""Input modulation: a plain loop of two passes, and the direction of back-propagation where the change is small."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

import cli
from methods._two_pass import TwoPass
from model import Backbone, Block, Shape
from tests.conftest import gradients, losses_of_training, make_batch, make_method
from utils import UsageError


def linear() -> Backbone:
    """Convolutions whose windows do not overlap: the rows of such a map are orthonormal where those of the kernel are.

    No width grows.
    """
    torch.manual_seed(0)
    blocks, before = [], 3
    for size, channels in ((4, 6), (2, 10), (1, 8)):
        blocks.append(
            Block(nn.Conv2d(before, channels, 2, stride=2), Shape(channels, size, size), *[nn.Identity()] * 2)
        )
        before = channels
    return Backbone(blocks, nn.Sequential(nn.Flatten(), nn.Linear(8, 5)))


def make(rule: str, backbone: Backbone | None = None, **settings: object) -> TwoPass:
    method = make_method(rule, backbone, **settings)
    assert isinstance(method, TwoPass)
    return method


@pytest.mark.parametrize("rule", ["pepita", "foton"])
def test_both_passes_as_in_a_plain_loop(rule: str) -> None:
    """BatchNorm in training, ReLU, pools, a classifier with a hidden layer; of each rule the pass it learns from."""
    settings = {"orthonormal_weight": 0} if rule == "foton" else {}
    method, batch = make(rule, **settings), make_batch()
    method.fill_grads(batch)
    plain = make(rule, **settings)
    parts = [*plain.backbone.blocks, plain.backbone.classifier]
    sign = 1 if rule == "pepita" else -1
    with torch.no_grad():
        seen, changed = [batch.x_BCHW], []
        for part in parts:
            seen.append(part(seen[-1]))
        errors = torch.softmax(seen[-1], 1) - nn.functional.one_hot(batch.y_B, 5)
        changed.append(batch.x_BCHW.clone())
        for image, error in enumerate(errors):
            for number, row in enumerate(plain.projection_ND):
                changed[0][image] += sign * error[number] * row.view(3, 8, 8)
        for part in parts:
            changed.append(part(changed[-1]))
    learning = changed if rule == "pepita" else seen
    for index, part in enumerate(parts):
        received = errors if index == 3 else seen[index + 1] - changed[index + 1]
        expected = torch.autograd.grad(part(learning[index]), [*part.parameters()], received / 6)
        for parameter, gradient in zip(
            [*method.backbone.blocks, method.backbone.classifier][index].parameters(), expected, strict=True
        ):
            torch.testing.assert_close(parameter.grad, gradient)


def test_a_small_change_through_the_gradients_own_way_is_back_propagation() -> None:
    """Of orthonormal weights; what is left falls with the change, which the weights see in their inputs."""
    backbone = linear()
    for block in backbone.blocks:
        rows = torch.linalg.qr(block.features.weight.detach().double().flatten(1).t())[0].t()
        block.features.weight.data = rows.view_as(block.features.weight)
    whole = make_method("bp", backbone)
    whole.fill_grads(make_batch())
    true = gradients(whole)
    x = make_batch().x_BCHW[:1]
    rows = torch.autograd.functional.jacobian(whole.backbone, x).flatten(2)[0, :, :]
    rows = rows.reshape(5, -1)
    errors = []
    for scale in (0.04, 0.02, 0.01):
        whole.zero_grad()
        method = make("pepita", backbone)
        method.projection_ND = -scale * rows
        method.fill_grads(make_batch())
        found = gradients(method)
        names = [name for name in true if "blocks" in name]
        errors.append(max(((found[n] / scale - true[n]).norm() / true[n].norm()).item() for n in names))
    for before, after in itertools.pairwise(errors):
        assert before / after == pytest.approx(2, rel=0.02)


def test_without_a_change_the_classifier_alone_learns() -> None:
    method, whole = make("pepita"), make_method("bp")
    method.projection_ND.zero_()
    for trained in (method, whole):
        trained.fill_grads(make_batch())
    for name, gradient in gradients(whole).items():
        found = method.get_parameter(name).grad
        assert torch.allclose(found, gradient) if "classifier" in name else not found.any(), name


@pytest.mark.parametrize("rule", ["pepita", "foton"])
def test_running_statistics_are_those_of_the_first_pass(rule: str) -> None:
    method = make(rule)
    whole = make_method("bp", method.backbone)
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    method.fill_grads(make_batch())
    after = {name: value.clone() for name, value in whole.state_dict().items()}
    whole.load_state_dict(before)
    whole.fill_grads(make_batch())
    for name, value in whole.state_dict().items():
        assert torch.equal(after[name], value), name


@pytest.mark.parametrize("rule", ["pepita", "foton", "foton frozen"])
def test_loss_falls_on_a_fixed_batch(rule: str) -> None:
    losses = losses_of_training(make(rule), 0.05, 150)
    assert losses[-1] < 0.7 * losses[0]


def test_the_projection_has_the_scale_that_is_asked_for() -> None:
    one, two = (make("pepita", projection_scale=scale).projection_ND for scale in (0.05, 0.2))
    assert one.shape == (5, 192)
    largest = 0.05 * (6 / 192) ** 0.5
    assert 0.98 * largest < one.abs().max().item() <= largest
    assert one.mean().item() == pytest.approx(0, abs=0.1 * largest)
    assert one.std().item() == pytest.approx(largest / 3**0.5, rel=0.05)
    torch.testing.assert_close(two, 4 * one, rtol=1e-6, atol=0)


@pytest.mark.parametrize("words", ["--projection_scale 0", "--projection_scale nan", "--projection_scale 11"])
def test_what_is_out_of_range_is_one_line(words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        cli.parse(["--pepita", *words.split()])
    assert "\n" not in str(refusal.value) and refusal.value.exit_code == 2
