"""Heads without parameters and without bias: closed forms, and the bits of greedy learning with frozen linear heads."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cli
from heads.classifiers import CLASSIFIERS
from heads.fixed import ChannelGoodness, waves
from methods._base import Method
from model import Shape
from tests.conftest import gradients, make_batch, make_method
from utils import UsageError

FIXED = ["channelwise", "lls", "random"]


def with_linear(weights: dict[str, Tensor], *before: nn.Module) -> Method:
    """Greedy learning with linear heads of these weights and no bias; maps are small, so that none is pooled."""
    method = make_method("dgl", pred_aux_type="linear")
    for name, weight_ND in weights.items():
        pool, flatten, layer = method.heads[name]
        assert isinstance(pool, nn.Identity)
        layer.weight.data, layer.bias = weight_ND.clone(), None
        method.heads[name] = nn.Sequential(flatten, *before, layer)
    return method


def test_monoforward_is_greedy_learning_with_a_linear_head_bit_for_bit() -> None:
    method = make_method("dgl monoforward")
    linear = with_linear({name: head[1].weight.detach() for name, head in method.heads.items()})
    for each in (method, linear):
        each.fill_grads(make_batch())
    assert len(gradients(linear)) == len(gradients(method))
    for (key, one), (other_key, other) in zip(gradients(method).items(), gradients(linear).items(), strict=True):
        assert key.startswith("heads") or key == other_key
        assert torch.equal(one, other), key


def test_monoforward_is_a_product_with_one_matrix() -> None:
    """Logits ``M h`` and the gradients of both factors, from the softmax."""
    head, h = CLASSIFIERS["monoforward"](Shape(4, 2, 3), 5, 1, 8).double(), torch.randn(6, 4, 2, 3).double()
    h.requires_grad_()
    y_B, M = make_batch().y_B, head[1].weight
    F.cross_entropy(head(h), y_B).backward()
    error_BN = (torch.softmax(h.detach().flatten(1) @ M.detach().t(), 1) - F.one_hot(y_B, 5)) / 6
    torch.testing.assert_close(h.grad.flatten(1), error_BN @ M.detach())
    torch.testing.assert_close(M.grad, error_BN.t() @ h.detach().flatten(1))
    assert [*head.parameters()] == [M]


def test_lls_is_greedy_learning_with_a_frozen_linear_head_bit_for_bit() -> None:
    class Unit(nn.Module):
        def forward(self, z_BD: Tensor) -> Tensor:
            return z_BD / z_BD.norm(dim=1, keepdim=True).clamp(min=1e-12)

    method = make_method("dgl lls")
    sizes = {"block_00": 4 * 4 * 4, "block_01": 6 * 2 * 2}
    linear = with_linear({name: waves(5, size).double() for name, size in sizes.items()}, Unit())
    for each in (method, linear):
        each.fill_grads(make_batch())
    found = gradients(linear)
    assert not any(key.startswith("heads") for key in gradients(method))
    for key, gradient in gradients(method).items():
        assert torch.equal(gradient, found[key]), key


def test_random_heads_are_greedy_learning_with_a_frozen_linear_head_bit_for_bit() -> None:
    method = make_method("dgl random")
    linear = make_method("dgl", pred_aux_type="linear")
    for name, head in method.heads.items():
        pool, flatten, fixed = head
        layer = nn.Linear(fixed.weight_ND.shape[1], 5, bias=False).double().requires_grad_(False)
        layer.weight.data = fixed.weight_ND.clone()
        linear.heads[name] = nn.Sequential(pool, flatten, layer)
    for each in (method, linear):
        each.fill_grads(make_batch())
    for key, gradient in gradients(method).items():
        assert torch.equal(gradient, gradients(linear)[key]), key


def test_waves_are_sines_of_the_index() -> None:
    found = waves(3, 40)
    for row, frequency in enumerate((50.0, 281.0, 512.0)):
        for column in range(40):
            assert found[row, column].item() == pytest.approx(math.sin(frequency * column), abs=1e-6)


def test_the_gradient_of_channelwise_goodness_is_its_closed_form() -> None:
    """``2 h (softmax - onehot) / (B n)`` for the n values of a class; the ones of a map are its goodness."""
    head, h = ChannelGoodness(3), torch.randn(6, 6, 2, 2, dtype=torch.float64).requires_grad_()
    y_B = torch.arange(6) % 3
    F.cross_entropy(head(h), y_B).backward()
    goodness_BN = h.detach().square().view(6, 3, 8).mean(2)
    error_BN = torch.softmax(goodness_BN, 1) - F.one_hot(y_B, 3)
    torch.testing.assert_close(h.grad, 2 * h.detach() * error_BN.repeat_interleave(2, 1)[:, :, None, None] / (6 * 8))
    assert head(torch.ones(2, 7, 3, 3)).tolist() == [[1, 1, 1]] * 2
    assert head(torch.ones(1, 3, 1, 1, dtype=torch.bfloat16)).dtype is torch.float32


@pytest.mark.parametrize("kind", FIXED)
def test_they_have_no_parameters_and_a_state_that_is_kept(kind: str) -> None:
    method = make_method(f"dgl {kind}")
    assert not [*method.heads.parameters()]
    other = make_method(f"dgl {kind}")
    torch.manual_seed(9)
    for head in other.heads.modules():
        for buffer in head.buffers(recurse=False):
            buffer.copy_(torch.randn_like(buffer))
    other.load_state_dict(method.state_dict())
    for each in (method, other):
        each.fill_grads(make_batch())
    for key, gradient in gradients(method).items():
        assert torch.equal(gradient, gradients(other)[key]), key


def test_an_output_smaller_than_the_classes_is_refused() -> None:
    with pytest.raises(UsageError, match="channelwise: a block has 4 outputs, fewer than the 10 classes"):
        CLASSIFIERS["channelwise"](Shape(4, 1, 1), 10, 1, 8)


@pytest.mark.parametrize("kind", FIXED)
@pytest.mark.parametrize("rule", ["critic", "infopro"])
def test_rules_that_teach_their_heads_refuse_them(rule: str, kind: str) -> None:
    with pytest.raises(UsageError, match=f"--pred_aux_type '{kind}': allowed is one of mlp") as refusal:
        cli.parse([f"--{rule}", "--pred_aux_type", kind])
    assert "\n" not in str(refusal.value) and refusal.value.exit_code == 2
