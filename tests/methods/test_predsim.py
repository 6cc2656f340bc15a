"""Prediction and similarity matching against its limit cases and the paper's loss."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from consts import block_name
from methods.predsim import PredSim
from model import Backbone
from objectives.similarity import similarity_matching
from tests.conftest import gradients, make_batch, make_method, strided_backbone

HEADS = ["mlp", "cnn", "pooled", "mlp_sr", "linear"]


def cut_before_pools(dropout: float = 0.0) -> Backbone:
    """The same network, where dropout and pool belong to the block above them; heads then stand before both."""
    backbone = strided_backbone(dropout)
    for index in range(2):
        block, above = backbone.block(index), backbone.block(index + 1)
        between = nn.Sequential(block.dropout, block.pool).train()
        above.features.register_forward_pre_hook(lambda _, x, between=between: between(*x))
        block.dropout, block.pool, block.out_shape = nn.Identity(), nn.Identity(), block.features_shape
    backbone.out_shapes = [block.out_shape for block in backbone.blocks]
    return backbone


def paper_loss(method: PredSim, weight: float) -> torch.Tensor:
    """The sum over blocks of ``(1 - b) CE + b sim``, all graphs at once."""
    batch, total = make_batch(), torch.zeros((), dtype=torch.float64)
    h_BCHW = batch.x_BCHW
    for index in range(3):
        block = method.backbone.block(index)
        features_BCHW = block.features(h_BCHW.detach())
        h_BCHW = block.pool(features_BCHW)
        seen_BCHW = h_BCHW if index == 2 else features_BCHW
        g = method.similarity_heads[block_name(index)]
        total = total + (1 - weight) * F.cross_entropy(method.head(index)(seen_BCHW), batch.y_B)
        total = total + weight * similarity_matching(g(features_BCHW), batch.y_B, 5)
    return total


def is_head(name: str) -> bool:
    return name.startswith("heads.") or "classifier" in name


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_without_similarity_it_is_dgl_with_heads_before_dropout_and_pool(head: str, dropout: float) -> None:
    settings = {"pred_aux_type": head}
    torch.manual_seed(0)
    local = make_method("predsim", strided_backbone(dropout), sim_loss_weight=0.0, **settings)
    torch.manual_seed(0)
    greedy = make_method("dgl", cut_before_pools(dropout), **settings)
    assert local.state_dict().keys() == greedy.state_dict().keys()
    for name, value in greedy.state_dict().items():
        assert torch.equal(value, local.state_dict()[name]), name  # same draws, in the same order
    outputs = []
    for method in (local, greedy):
        torch.manual_seed(1)
        outputs.append(method.fill_grads(make_batch()))
    for name, gradient in gradients(greedy).items():
        assert torch.equal(gradient, gradients(local)[name]), name
    for ours, theirs in zip(outputs[0].losses, outputs[1].losses, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("weight", [0.3, 0.99])
@pytest.mark.parametrize("head", HEADS)
def test_gradients_are_those_of_the_papers_loss_but_for_the_scale_of_the_heads(head: str, weight: float) -> None:
    settings = {"pred_aux_type": head, "sim_loss_weight": weight}
    immediate, oracle = make_method("predsim", **settings), make_method("predsim", **settings)
    for method in (immediate, oracle):  # a linear head starts at zero, where its gradient would not be seen
        for index in range(2):
            for parameter in method.head(index).parameters():
                nn.init.normal_(parameter, generator=torch.Generator().manual_seed(3))
    immediate.fill_grads(make_batch())
    paper_loss(oracle, weight).backward()
    for name, gradient in gradients(oracle).items():
        expected = gradient / (1 - weight) if is_head(name) else gradient
        torch.testing.assert_close(gradients(immediate)[name], expected, rtol=1e-9, atol=1e-12, msg=name)


def test_with_adam_that_scale_makes_no_difference() -> None:
    """Deviation 1: the weights after several steps are those that the paper's loss gives."""
    immediate, oracle = make_method("predsim"), make_method("predsim")
    for method in (immediate, oracle):
        optimizer = torch.optim.Adam(method.param_groups(), lr=1e-3, eps=1e-20)
        for _ in range(5):
            if method is immediate:
                method.fill_grads(make_batch())
            else:
                paper_loss(method, 0.99).backward()
            for name, parameter in method.named_parameters():
                if name.endswith("features.0.bias"):  # BatchNorm cancels it; its gradient is rounding
                    parameter.grad.zero_()
            optimizer.step()
            optimizer.zero_grad()
    for name, value in oracle.named_parameters():
        torch.testing.assert_close(immediate.state_dict()[name], value.data, rtol=1e-6, atol=1e-8, msg=name)


def test_similarity_alone_has_no_heads_and_leaves_the_classifier_a_detached_input() -> None:
    method = make_method("predsim", sim_loss_weight=1.0)
    assert not [name for name, _ in method.named_parameters() if name.startswith("heads.")]
    output = method.fill_grads(make_batch())
    assert [logits is None for logits in output.logits] == [True, True, False]
    with torch.no_grad():
        assert [out is None for out in method.block_logits(make_batch().x_BCHW)] == [True, True, False]
    before = gradients(method)
    assert all(gradient is not None for gradient in before.values())
    with torch.no_grad():
        for parameter in method.backbone.classifier.parameters():
            parameter.add_(1)
    method.zero_grad()
    method.fill_grads(make_batch())
    for name, gradient in gradients(method).items():
        assert torch.equal(gradient, before[name]) != ("classifier" in name), name


def test_prediction_exits_are_there_otherwise() -> None:
    for weight in (0.0, 0.99):
        method = make_method("predsim", sim_loss_weight=weight).eval()
        assert [out.shape for out in method.block_logits(make_batch().x_BCHW)] == [(6, 5)] * 3


def test_losses_see_the_output_before_dropout() -> None:
    """Only the classifier, behind the last dropout, may notice the masks of the first block's batch."""
    method = make_method("predsim", strided_backbone(dropout=0.5))
    first, second = (method.fill_grads(make_batch()).losses for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


def test_bf16_losses_are_computed_in_float32() -> None:
    method, batch = make_method("predsim").float(), make_batch(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output = method.fill_grads(batch)
    assert all(loss.dtype == torch.float32 for loss in output.losses)
    assert all(torch.isfinite(p.grad).all() for p in method.parameters())


def local_classifier_oracle(method: PredSim, weight: float) -> None:
    """Every isolated part of the paper's network with its own ``(1 - b) CE + b sim``, all graphs at once."""
    batch = make_batch()
    flatten, hidden, relu, output = method.backbone.classifier
    features_BCHW, total = None, torch.zeros((), dtype=torch.float64)
    h_BCHW = batch.x_BCHW
    for index in range(3):
        block = method.backbone.block(index)
        features_BCHW = block.features(h_BCHW.detach())
        h_BCHW = block.pool(features_BCHW)
        head = method.top_heads[0] if index == 2 else method.head(index)
        g = method.similarity_heads[block_name(index)]
        total = total + (1 - weight) * F.cross_entropy(head(features_BCHW), batch.y_B)
        total = total + weight * similarity_matching(g(features_BCHW), batch.y_B, 5)
    h_BD = relu(hidden(flatten(h_BCHW).detach()))
    total = total + (1 - weight) * F.cross_entropy(method.top_heads[1](h_BD), batch.y_B)
    total = total + weight * similarity_matching(method.top_similarity_heads[0](h_BD), batch.y_B, 5)
    (total + (1 - weight) * F.cross_entropy(output(h_BD.detach()), batch.y_B)).backward()


def test_a_local_classifier_is_the_papers_network() -> None:
    weight = 0.3
    settings = {"local_classifier": True, "sim_loss_weight": weight}
    immediate, oracle = make_method("predsim", **settings), make_method("predsim", **settings)
    for method in (immediate, oracle):  # linear heads start at zero, where their gradient would not be seen
        for head in [*method.heads.values(), *method.top_heads]:
            for parameter in head.parameters():
                nn.init.normal_(parameter, generator=torch.Generator().manual_seed(3))
    immediate.fill_grads(make_batch())
    local_classifier_oracle(oracle, weight)
    for name, gradient in gradients(oracle).items():
        is_full = (is_head(name) and "classifier.1" not in name) or "top_heads" in name  # deviation 1
        scale = 1 - weight if is_full else 1
        torch.testing.assert_close(scale * gradients(immediate)[name], gradient, rtol=1e-10, atol=1e-13, msg=name)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_a_local_classifier_lets_no_gradient_cross(weight: float) -> None:
    settings = {"local_classifier": True, "sim_loss_weight": weight}
    method, changed = make_method("predsim", **settings), make_method("predsim", **settings)
    with torch.no_grad():
        changed.backbone.classifier[3].weight.add_(1.0)
    for each in (method, changed):
        each.fill_grads(make_batch())
    for name, gradient in gradients(method).items():
        assert gradient is not None, name
        assert torch.equal(gradient, gradients(changed)[name]) != ("classifier.3" in name), name


def test_a_local_classifier_leaves_the_inner_blocks_alone() -> None:
    plain, local = make_method("predsim"), make_method("predsim", local_classifier=True)
    for method in (plain, local):
        method.fill_grads(make_batch())
    for name, gradient in gradients(plain).items():
        if "blocks.0" in name or "blocks.1" in name:
            assert torch.equal(gradient, gradients(local)[name]), name
