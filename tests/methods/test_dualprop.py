"""Dual propagation: back-propagation, exactly where no unit crosses a kink, else to the order that theory says."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

import cli
from layers.saved import SavedBytes
from model import Backbone
from tests.conftest import assert_the_same_beside_its_copy, build, gradients, make_batch, make_method, strided_backbone
from utils import UsageError


def smooth() -> Backbone:
    torch.manual_seed(0)
    backbone = strided_backbone()
    for block in backbone.blocks:
        block.features[2] = nn.Tanh()
    backbone.classifier[2] = nn.Tanh()
    return backbone


def error(backbone: Backbone | None = None, *, trained_by: Backbone | None = None, **settings: object) -> float:
    """The largest deviation of a gradient from back-propagation's, over that gradient's largest value."""
    method, whole = make_method("dualprop", backbone, **settings), make_method("bp", trained_by)
    for trained in (method, whole):
        trained.fill_grads(make_batch())
    found, worst = gradients(method), 0.0
    for key, gradient in gradients(whole).items():
        if not key.endswith("features.0.bias"):  # zero up to rounding: BatchNorm takes the mean away
            worst = max(worst, ((found[key] - gradient).abs().max() / gradient.abs().max()).item())
    return worst


@pytest.mark.parametrize("mixture", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("weighting", ["transposed", "plain"])
@pytest.mark.parametrize("sweeps", [1, 3])
def test_where_no_unit_crosses_a_kink_it_is_back_propagation(mixture: float, weighting: str, sweeps: int) -> None:
    """ReLU, pools and BatchNorm in training; what is left is the rounding of a difference, over beta."""
    found = error(nudge=1e-4, mixture=mixture, weighting=weighting, sweeps=sweeps)
    # With a mixture other than 1/2 the first rule's activities are off by beta.
    assert found < (1e-9 if weighting == "transposed" or sweeps == 1 or mixture == 0.5 else 1e-2)


@pytest.mark.parametrize(("mixture", "ratio"), [(0.5, 4), (0.0, 2), (1.0, 2)])
def test_on_smooth_units_the_error_falls_with_the_order_of_the_mixture(mixture: float, ratio: int) -> None:
    errors = [
        error(smooth(), trained_by=smooth(), nudge=nudge, mixture=mixture, sweeps=12) for nudge in (0.04, 0.02, 0.01)
    ]
    for before, after in itertools.pairwise(errors):
        assert before / after == pytest.approx(ratio, rel=0.15)


def test_the_nudge_is_in_units_of_one_images_loss() -> None:
    single, double = (make_method("dualprop", smooth(), nudge=0.5, mixture=0.0, sweeps=2) for _ in range(2))
    assert_the_same_beside_its_copy(single, double)


@pytest.mark.parametrize("weighting", ["transposed", "plain"])
def test_one_hidden_layer_as_in_a_plain_loop(weighting: str) -> None:
    """States, activities and gradients of the classifier's layers, two sweeps, all blocks but the last frozen."""
    settings = {"nudge": 0.7, "mixture": 0.2, "weighting": weighting, "sweeps": 2, "first_trainable_block": -1}
    method, batch = make_method("dualprop", smooth(), **settings), make_batch()
    with torch.no_grad():
        x_BCHW = method.backbone.block(1)(method.backbone.block(0)(batch.x_BCHW))
    method.fill_grads(batch)
    found = gradients(method)
    block, (_, lower, _, upper) = method.backbone.block(2), method.backbone.classifier
    a, b = (0.8, 0.2) if weighting == "transposed" else (0.2, 0.8)

    def states(driven: Tensor, back: Tensor) -> tuple[Tensor, Tensor]:
        plus, minus = torch.tanh(driven + a * back), torch.tanh(driven - b * back)
        return 0.2 * plus + 0.8 * minus, plus - minus

    normed_BCHW = block.features[1](block.features[0](x_BCHW))
    s1 = torch.tanh(normed_BCHW).detach()
    s2 = torch.tanh(lower(block.pool(s1).flatten(1))).detach()
    onehot = torch.nn.functional.one_hot(batch.y_B, 5)
    for _ in range(2):
        old1, old2 = s1, s2
        error_BN = torch.softmax(upper(s2), 1) - onehot
        s2, d2 = states(lower(block.pool(s1).flatten(1)), -0.7 * error_BN @ upper.weight)
        leaf = s1.requires_grad_()
        (back,) = torch.autograd.grad(lower(block.pool(leaf).flatten(1)), leaf, d2.detach())
        s1, d1 = (each.detach() for each in states(normed_BCHW, back))
        s2, d2 = s2.detach(), d2.detach()
    scale = -1 / (0.7 * 6)
    torch.testing.assert_close(found["backbone.classifier.3.weight"], (error_BN.t() @ old2).detach() / 6)
    torch.testing.assert_close(
        found["backbone.classifier.1.weight"], scale * d2.t() @ block.pool(old1.detach()).flatten(1)
    )
    (expected,) = torch.autograd.grad(normed_BCHW, block.features[0].weight, scale * d1)
    torch.testing.assert_close(found["backbone.blocks.2.features.0.weight"], expected)


def test_with_feedback_of_its_own_it_is_feedback_alignment_where_no_unit_crosses_a_kink() -> None:
    """The same random B in both: the weights' gradients, and those of B, which are the weights'."""
    method = make_method("dualprop", nudge=1e-4, sweeps=2, feedback="kolen_pollack")
    other = make_method("fa", feedback="kolen_pollack")
    for feedback, same in zip(method.learned.parameters(), other.learned.parameters(), strict=True):
        same.data.copy_(feedback)
    for trained in (method, other):
        trained.fill_grads(make_batch())
    found, expected = gradients(method), gradients(other)
    assert found.keys() == expected.keys() and any("learned" in key for key in found)
    for key, gradient in expected.items():
        if not key.endswith("features.0.bias"):
            assert (found[key] - gradient).abs().max() < 1e-8 * gradient.abs().max(), key


def test_with_feedback_equal_to_the_weights_it_is_the_symmetric_rule() -> None:
    symmetric, method = (
        make_method("dualprop", smooth(), sweeps=3, feedback=word) for word in ("symmetric", "kolen_pollack")
    )
    for feedback, layer in zip(method.learned.parameters(), method.layers_with_feedback(), strict=True):
        feedback.data.copy_(layer.weight)
    for trained in (symmetric, method):
        trained.fill_grads(make_batch())
    found = gradients(method)
    for key, gradient in gradients(symmetric).items():
        assert torch.equal(found[key], gradient), key


def test_running_statistics_are_those_of_the_forward_pass() -> None:
    method, whole = make_method("dualprop", sweeps=3), make_method("bp")
    for trained in (method, whole):
        trained.fill_grads(make_batch())
    for key, value in whole.state_dict().items():
        assert torch.equal(method.state_dict()[key], value), key


def test_one_layers_graph_is_alive_at_a_time() -> None:
    peaks = []
    for name in ("dualprop", "bp"):
        method = make_method(name)
        counter = SavedBytes(method.parameters())
        with counter.hooks:
            method.fill_grads(make_batch(num_images=32))
        peaks.append(counter.peak_bytes)
    assert peaks[0] < 0.8 * peaks[1]


def test_a_block_without_an_activation_of_its_own_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^--dualprop: block_01 \(Residual\) shows no activation") as refusal:
        make_method("dualprop", build("ResNet20", 8))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("words", ["--nudge 0", "--mixture 1.1", "--sweeps 0", "--weighting plain"])
def test_what_is_out_of_range_or_without_effect_is_one_line(words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        cli.parse(["--dualprop", *words.split()])
    assert "\n" not in str(refusal.value) and refusal.value.exit_code == 2
