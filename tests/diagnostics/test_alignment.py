"""Gradients, signals and feedback compared: known answers, an independent reference, and nothing left behind."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from diagnostics.alignment import Alignment, agreement, alignment
from methods._base import Method
from methods._signal import Trace
from methods._transport import FORMS
from methods._way_down import FEEDBACK
from tests.conftest import CASES, RULES, backbone_of, gradients, make_batch, make_method, strided_backbone

NUM_BLOCKS = 3
SAME = (1.0, 0.0, 1.0)


def compare(method: Method) -> Alignment:
    return alignment(method, strided_backbone().double(), make_batch())


def test_back_propagation_is_aligned_with_itself_in_every_bit() -> None:
    same = dict.fromkeys(range(NUM_BLOCKS), SAME)
    assert compare(make_method("bp")) == (same, same, {})


def test_a_row_and_its_multiples() -> None:
    """The negative, a scaled one, one at a right angle, and the mean over rows of 0, 60 and 180 degrees."""
    row_BD = torch.tensor([[3.0, 4.0]])
    assert agreement(row_BD, row_BD) == SAME
    assert agreement(-row_BD, row_BD) == (-1, 180, 1)
    assert agreement(0.25 * row_BD, row_BD) == (1, 0, 0.25)
    assert agreement(torch.tensor([[-4.0, 3.0]]), row_BD) == pytest.approx((0, 90, 1))
    turned_BD = torch.tensor([[2.0, 0], [1, math.sqrt(3)], [-2, 0]], dtype=torch.float64)
    axis_BD = torch.tensor([[1.0, 0]], dtype=torch.float64).expand(3, 2)
    assert agreement(turned_BD, axis_BD) == pytest.approx((0.5 / 3, 80, 2))


def test_rows_of_zeros_do_not_count_but_in_the_norm() -> None:
    rows_BD = torch.tensor([[3.0, 4.0], [0, 0]])
    assert agreement(rows_BD, torch.tensor([[3.0, 4.0], [5, 0]])) == pytest.approx((1, 0, math.sqrt(0.5)))
    assert agreement(rows_BD[1:], rows_BD[:1]) is None
    assert agreement(rows_BD[:1], rows_BD[1:]) is None


def test_random_rows_are_at_right_angles_within_what_their_length_leaves() -> None:
    """In D dimensions 90 degrees, give or take 57 / sqrt(D); more rows than are computed at once."""
    generator = torch.Generator().manual_seed(2)
    one_BD, other_BD = (torch.randn(40, 10_000, generator=generator) for _ in range(2))
    found = agreement(one_BD, other_BD)
    assert found is not None
    assert found.angle == pytest.approx(90, abs=4 * 57 / math.sqrt(40 * 10_000))
    assert agreement(1e-12 * one_BD, one_BD) == pytest.approx((1, 0, 1e-12), abs=1e-4)
    expected = torch.cosine_similarity(one_BD.double(), other_BD.double()).mean()
    assert found.cosine == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("factor", [-1, 3])
def test_a_signal_that_is_a_multiple_of_the_true_one(factor: float) -> None:
    """It multiplies on its way down; the gradients of a block are those of its signal."""
    method = make_method("bp")
    signal = type(method).signal

    class Multiple(type(method)):  # type: ignore[misc]
        def signal(self, index: int, trace: Trace, above_BCHW: torch.Tensor) -> torch.Tensor:
            return factor * signal(self, index, trace, above_BCHW)

    method.__class__ = Multiple
    found = compare(method)
    for block in range(NUM_BLOCKS):
        times = factor ** (NUM_BLOCKS - block)
        expected = (-1, 180, -times) if times < 0 else (1, 0, times)
        assert found.signals[block] == pytest.approx(expected, abs=1e-5)
    assert found.gradients[0] == pytest.approx(found.signals[0], abs=1e-5)


def test_signals_are_those_at_the_blocks_outputs() -> None:
    method, batch = make_method("dfa"), make_batch()
    found = compare(method).signals
    network = copy.deepcopy(method.backbone)
    leaves, h_BCHW = [], batch.x_BCHW
    for block in network.blocks:
        h_BCHW = block(h_BCHW)
        leaves.append(h_BCHW)
    logits_BN = network.classifier(h_BCHW)
    true = torch.autograd.grad(torch.nn.functional.cross_entropy(logits_BN, batch.y_B), leaves)
    error_BN = (logits_BN.softmax(1) - torch.eye(5)[batch.y_B]).detach() / len(batch.y_B)
    for block in range(NUM_BLOCKS):
        own_BD = error_BN @ method.feedback.get_buffer(f"block_{block:02d}")
        true_BD = true[block].flatten(1)
        cosines = torch.cosine_similarity(own_BD, true_BD)
        expected = (cosines.mean(), cosines.arccos().rad2deg().mean(), own_BD.norm() / true_BD.norm())
        assert found[block] == pytest.approx(tuple(map(float, expected)), rel=1e-6)


def test_feedback_is_compared_with_the_weights_it_stands_for() -> None:
    """Not in the lowest block, below which nothing is sent; the classifier is part of the last."""
    method = make_method("fa")
    found = compare(method).feedback
    assert list(found) == [1, 2]
    assert all(abs(each.cosine) < 0.3 and 70 < each.angle < 110 for each in found.values())
    for layer in method.modules():
        if type(layer) in FORMS.values():
            layer.B.copy_(-2 * layer.weight.detach())
    assert compare(method).feedback == dict.fromkeys((1, 2), (-1, 180, 2))
    assert len(method.feedback_pairs(2)) == 3
    assert not compare(make_method("dfa")).feedback


def test_feedback_of_the_weights_signs_has_the_cosine_of_mean_and_root_mean_square() -> None:
    """Of one layer ``s sign(W)`` and W have the cosine ``mean |W| / rms W``."""
    method = make_method("fa", feedback="usf")
    weight = method.backbone.blocks[1].features[0].weight.detach()
    expected = float(weight.abs().mean() / weight.square().mean().sqrt())
    assert compare(method).feedback[1].cosine == pytest.approx(expected, rel=1e-9)
    assert expected > 0.8


@pytest.mark.parametrize("word", FEEDBACK)
def test_every_feedback_is_compared(word: str) -> None:
    found = compare(make_method("fa", feedback=word)).feedback
    assert list(found) == [1, 2]
    assert all(each.ratio > 0 for each in found.values())


def test_feedback_equal_to_the_weights_makes_every_signal_the_true_one() -> None:
    method = make_method("fa")
    for layer in method.modules():
        if type(layer) in FORMS.values():
            layer.B.copy_(layer.weight.detach())
    same = dict.fromkeys(range(NUM_BLOCKS), SAME)
    assert compare(method) == (same, same, {1: SAME, 2: SAME})


def test_synthesisers_that_say_zero_have_no_direction() -> None:
    found = compare(make_method("dni"))
    assert found.signals == {}
    assert list(found.gradients) == [2]  # the classifier's


def test_the_last_block_of_a_local_method_learns_as_under_back_propagation() -> None:
    found = compare(make_method("dgl pooled"))
    assert found.gradients[2] == SAME
    assert all(abs(found.gradients[block].cosine) < 0.9 for block in (0, 1))
    assert found.signals == {}


def test_feedback_weights_do_not_reach_the_reference() -> None:
    """The network of feedback alignment has layers that go backward another way; only its last block is exact."""
    found = compare(make_method("fa")).gradients
    assert found[0].cosine < 0.9
    assert compare(make_method("dfa")).gradients[0].cosine < 0.9


def test_cosine_and_ratio_are_those_of_the_definition() -> None:
    method, batch = make_method("dgl pooled"), make_batch()
    found = compare(method).gradients
    other = make_method("bp")
    other.backbone.load_state_dict(method.backbone.state_dict())
    method.fill_grads(batch)
    other.fill_grads(batch)
    local, true = gradients(method), gradients(other)
    for block in range(NUM_BLOCKS - 1):
        names = [name for name in true if name.startswith(f"backbone.blocks.{block}.")]
        one, two = (torch.cat([grads[name].flatten() for name in names]) for grads in (local, true))
        assert found[block].cosine == pytest.approx(float(torch.cosine_similarity(one, two, dim=0)))
        assert found[block].ratio == pytest.approx(float(one.norm() / two.norm()))


def test_frozen_blocks_are_left_out() -> None:
    found = compare(make_method("dgl", first_trainable_block=-1))
    assert found.gradients == {2: SAME}
    assert list(compare(make_method("dfa", first_trainable_block=1)).signals) == [1, 2]


@pytest.mark.parametrize("name", ["bp", "dgl pooled", "predsim"])
def test_dropout_does_not_blur_the_comparison(name: str) -> None:
    """A rule with heads draws other masks than back-propagation."""
    method, without = make_method(name, strided_backbone(dropout=0.5)), make_method(name)
    without.load_state_dict(method.state_dict())
    assert alignment(method, strided_backbone(dropout=0.5).double(), make_batch()) == compare(without)


COMPARED = [case for case, (rule, _) in CASES.items() if RULES[rule].CLASSIFIES and rule != "hopfield"]  # it refuses


@pytest.mark.parametrize("case", COMPARED)
def test_nothing_is_left_behind(case: str) -> None:
    method = make_method(case)
    method.fill_grads(make_batch())
    before, grads = copy.deepcopy(method.state_dict()), gradients(method)
    plain, random = backbone_of(case).double(), torch.get_rng_state()
    alignment(method, plain, make_batch())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    for name, gradient in gradients(method).items():
        assert gradient is None if grads[name] is None else torch.equal(gradient, grads[name])
    assert method.training and method.backbone.training
