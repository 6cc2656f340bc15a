"""Gradients compared: known answers, an independent reference, and nothing left behind."""

from __future__ import annotations

import copy

import pytest
import torch

from diagnostics.alignment import gradient_alignment
from methods._base import Method
from tests.conftest import CASES, backbone_of, gradients, make_batch, make_method, strided_backbone

NUM_BLOCKS = 3


def compare(method: Method) -> dict:
    return gradient_alignment(method, strided_backbone().double(), make_batch())


def test_back_propagation_is_aligned_with_itself_in_every_bit() -> None:
    assert compare(make_method("bp")) == dict.fromkeys(range(NUM_BLOCKS), (1.0, 1.0))


def test_the_last_block_of_a_local_method_learns_as_under_back_propagation() -> None:
    found = compare(make_method("dgl"))
    assert found[2] == (1.0, 1.0)
    assert all(abs(found[block].cosine) < 0.9 for block in (0, 1))


def test_feedback_weights_do_not_reach_the_reference() -> None:
    """The network of feedback alignment has layers that go backward another way; only its last block is exact."""
    found = compare(make_method("fa"))
    assert found[0].cosine < 0.9
    assert compare(make_method("dfa"))[0].cosine < 0.9


def test_cosine_and_ratio_are_those_of_the_definition() -> None:
    method, batch = make_method("dgl"), make_batch()
    found = compare(method)
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
    assert found == {2: (1.0, 1.0)}


def test_dropout_does_not_blur_the_comparison() -> None:
    method = make_method("bp", strided_backbone(dropout=0.5))
    found = gradient_alignment(method, strided_backbone(dropout=0.5).double(), make_batch())
    assert found == dict.fromkeys(range(NUM_BLOCKS), (1.0, 1.0))


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_left_behind(case: str) -> None:
    method = make_method(case)
    method.fill_grads(make_batch())
    before, grads = copy.deepcopy(method.state_dict()), gradients(method)
    plain, random = backbone_of(case).double(), torch.get_rng_state()
    gradient_alignment(method, plain, make_batch())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    for name, gradient in gradients(method).items():
        assert gradient is None if grads[name] is None else torch.equal(gradient, grads[name])
    assert method.training and method.backbone.training
