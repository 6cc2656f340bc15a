"""``--checkpoint_blocks``: the same bits as without, from less memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from layers.dropout import Dropout
from layers.saved import SavedBytes
from methods._base import Method
from tests.conftest import gradients, make_batch, make_method, strided_backbone


def pair(dropout: float = 0.0, **settings: object) -> tuple[Method, Method]:
    """Without and with, on equal weights; a dropout draws, whatever its probability."""
    plain = make_method("bp", strided_backbone(dropout), **settings)
    checkpointed = make_method("bp", strided_backbone(dropout), checkpoint_blocks=True, **settings)
    checkpointed.load_state_dict(plain.state_dict())
    return plain, checkpointed


def assert_same(plain: Method, checkpointed: Method) -> None:
    expected = gradients(plain)
    for name, gradient in gradients(checkpointed).items():
        assert (gradient is None) == (expected[name] is None), name
        assert gradient is None or torch.equal(gradient, expected[name]), name
    for name, value in checkpointed.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name]), name


@pytest.mark.parametrize("first", [0, 1, -1])
@pytest.mark.parametrize("dropout", ["none", "keyed", "torch's"])
def test_gradients_statistics_and_outputs_are_those_without(first: int, dropout: str) -> None:
    """BatchNorm's statistics move once in a step; dropout has one mask, also one that torch's own generator draws."""
    methods = pair(0.0 if dropout == "none" else 0.5, first_trainable_block=first)
    batch, found = make_batch(), []
    for method in methods:
        for step in range(3):
            torch.manual_seed(step)
            if dropout == "keyed":
                for index in range(3):
                    method.backbone.key_dropout(index, step * 10 + index)
            output = method.fill_grads(batch)
            found.append((output.losses[-1], torch.rand(3)))  # and torch's generator is left as without
    assert all(
        torch.equal(a, b)
        for one, other in zip(found[:3], found[3:], strict=True)
        for a, b in zip(one, other, strict=True)
    )
    assert_same(*methods)


def test_masks_are_not_trivially_the_same() -> None:
    """The equality above can fail: with another state of the generator the second pass would differ."""
    plain, checkpointed = pair(0.5)
    assert any(isinstance(layer, Dropout) for layer in plain.modules())
    for seed, method in enumerate((plain, checkpointed)):
        torch.manual_seed(seed)
        method.fill_grads(make_batch())
    with pytest.raises(AssertionError):
        assert_same(plain, checkpointed)


def test_evaluation_between_passes_and_unusual_layers_are_left_as_they_were() -> None:
    """A BatchNorm without running statistics has none afterwards, and others go on to track theirs."""
    _, method = pair()
    method.backbone.block(0).features[1] = nn.BatchNorm2d(4, track_running_stats=False).double()
    method.fill_grads(make_batch())
    norms = [layer for layer in method.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert [norm.track_running_stats for norm in norms] == [False, True, True]
    assert [None if norm.num_batches_tracked is None else int(norm.num_batches_tracked) for norm in norms] == [
        None,
        1,
        1,
    ]


def test_less_is_kept_for_the_backward_pass() -> None:
    """Behind the forward pass there are the inputs of the blocks, and the graph of the last block alone."""
    kept = []
    for method in pair():
        counter = SavedBytes(method.parameters())
        with counter.hooks:
            trace = method.run(make_batch())
        kept.append(counter._bytes)
        del trace
    assert kept[1] < kept[0] / 2


def test_copies_and_other_rules() -> None:
    _, method = pair()
    copy.deepcopy(method).fill_grads(make_batch())
    assert not make_method("fa").checkpoints
