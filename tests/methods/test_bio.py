"""The bio form of predsim: its losses by loops, its gradients by hand, its limit cases."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from consts import block_name
from heads.classifiers import pool_to_at_most
from methods.predsim import NUM_TARGETS, BioHead, PredSim
from model import Shape
from tests.conftest import CLASSES, gradients, make_batch, make_method
from tests.objectives.test_similarity import by_loops


def make_head(num_features: int = 20, predicts: bool = True) -> tuple[BioHead, torch.Tensor, torch.Tensor]:
    """A head with weights that are not zero, maps that it pools, and labels."""
    torch.manual_seed(2)
    head = BioHead(Shape(5, 4, 4), len(CLASSES), num_features, predicts).double()
    if head.decoder is not None:
        nn.init.normal_(head.decoder[2].weight)
    return head, torch.randn(6, 5, 4, 4, dtype=torch.float64).requires_grad_(), torch.arange(6) % 5


def test_a_class_is_128_random_bits_and_the_feedback_a_linear_layer_s_law() -> None:
    head = BioHead(Shape(100, 2, 2), 16, 400, predicts=True)
    assert head.code_ND.shape == (16, NUM_TARGETS) and head.decoder[2].weight.shape == (NUM_TARGETS, 400)
    assert head.code_ND.abs().max() == pytest.approx(1 / 16**0.5, rel=0.01)
    assert head.decoder[2].B.abs().max() == pytest.approx(1 / 400**0.5, rel=0.01)
    assert not head.decoder[2].weight.any() and not head.decoder[2].bias.any()
    bits_ND = head.code_ND > 0
    assert 0.4 < bits_ND.float().mean() < 0.6
    assert len({tuple(row.tolist()) for row in bits_ND}) == 16
    assert [name for name, _ in head.named_parameters()] == ["decoder.2.weight", "decoder.2.bias"]
    assert {"code_ND", "decoder.2.B"} <= head.state_dict().keys()


def test_prediction_loss_by_loops() -> None:
    head, x_BCHW, y_B = make_head()
    found = head.prediction_loss(x_BCHW, y_B).item()
    layer, pooled_BD = head.decoder[2], F.avg_pool2d(x_BCHW, (2, 2)).flatten(1)
    total = 0.0
    for image, label in zip(pooled_BD, y_B.tolist(), strict=True):
        for row, bias, number in zip(layer.weight, layer.bias, head.code_ND[label].tolist(), strict=True):
            p = 1 / (1 + math.exp(-(row @ image + bias).item()))
            total -= math.log(p if number > 0 else 1 - p)
    assert found == pytest.approx(total / (6 * NUM_TARGETS), rel=1e-12)


def test_similarity_loss_by_loops() -> None:
    head, x_BCHW, y_B = make_head()
    images, targets = by_loops(F.avg_pool2d(x_BCHW.detach(), (2, 2))), by_loops(head.code_ND[y_B])
    total = sum((images[i][j] - targets[i][j]) ** 2 for i in range(6) for j in range(6))
    assert head.similarity_loss(x_BCHW, y_B).item() == pytest.approx(total / 36, rel=1e-12)


def test_the_input_gets_the_error_through_the_fixed_matrix_and_the_weight_its_own_gradient() -> None:
    head, x_BCHW, y_B = make_head(num_features=80)
    assert isinstance(pool_to_at_most(Shape(5, 4, 4), 80)[0], nn.Identity)
    head.prediction_loss(x_BCHW, y_B).backward()
    layer, x_BD = head.decoder[2], x_BCHW.detach().flatten(1)
    logits_BD = x_BD @ layer.weight.detach().T + layer.bias.detach()
    delta_BD = (logits_BD.sigmoid() - (head.code_ND[y_B] > 0).double()) / logits_BD.numel()
    torch.testing.assert_close(x_BCHW.grad.flatten(1), delta_BD @ layer.B, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(layer.weight.grad, delta_BD.T @ x_BD, rtol=1e-12, atol=1e-15)
    assert not torch.allclose(layer.B, layer.weight)


def test_with_the_weight_for_the_fixed_matrix_it_is_autograd_of_a_plain_layer() -> None:
    head, x_BCHW, y_B = make_head()
    layer = head.decoder[2]
    with torch.no_grad():
        layer.B.copy_(layer.weight)
    head.prediction_loss(x_BCHW, y_B).backward()
    found = [x_BCHW.grad, layer.weight.grad, layer.bias.grad]
    leaf_BCHW = x_BCHW.detach().clone().requires_grad_()
    logits_BD = F.linear(F.avg_pool2d(leaf_BCHW, (2, 2)).flatten(1), layer.weight, layer.bias)
    loss = F.binary_cross_entropy(logits_BD.sigmoid(), (head.code_ND[y_B] > 0).double())
    for ours, theirs in zip(found, torch.autograd.grad(loss, (leaf_BCHW, layer.weight, layer.bias)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("bio", [True, False])
def test_at_the_first_step_the_loss_is_ln_2_and_the_block_learns_already(bio: bool) -> None:
    method = make_method("predsim", bio=bio, sim_loss_weight=0.0)
    losses = method.fill_grads(make_batch()).losses
    assert [loss.item() for loss in losses[:2]] == pytest.approx([math.log(2 if bio else 5)] * 2, rel=1e-12)
    assert method.backbone.block(0).features[0].weight.grad.any() == bio


def aligned(**settings: object) -> PredSim:
    """A method whose decoders are not zero and send the gradient down through their own weights."""
    method = make_method("predsim bio", **settings)
    generator = torch.Generator().manual_seed(3)
    for head in [*method.similarity_heads.values(), *method.top_similarity_heads]:
        if head.decoder is not None:
            nn.init.normal_(head.decoder[2].weight, generator=generator)
            head.decoder[2].B.copy_(head.decoder[2].weight.detach())
    return method


def paper_loss(method: PredSim, weight: float, local: bool) -> torch.Tensor:
    """The sum of the losses of all isolated parts, all graphs at once."""
    batch, total = make_batch(), torch.zeros((), dtype=torch.float64)

    def both(head: BioHead, features: torch.Tensor) -> torch.Tensor:
        loss = weight * head.similarity_loss(features, batch.y_B)
        return loss if head.decoder is None else loss + (1 - weight) * head.prediction_loss(features, batch.y_B)

    h_BCHW = batch.x_BCHW
    for index in range(3):
        block = method.backbone.block(index)
        features_BCHW = block.features(h_BCHW.detach())
        h_BCHW = block.pool(features_BCHW)
        total = total + both(method.similarity_heads[block_name(index)], features_BCHW)
    flatten, hidden, relu, output = method.backbone.classifier
    h_BD = relu(hidden(flatten(h_BCHW.detach() if local else h_BCHW)))
    if local:
        total, h_BD = total + both(method.top_similarity_heads[0], h_BD), h_BD.detach()
    return total + (1 - weight) * F.cross_entropy(output(h_BD), batch.y_B)


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("weight", [0.01, 0.6])
def test_equals_the_sum_of_the_papers_losses_but_for_the_scale_of_the_heads(weight: float, local: bool) -> None:
    settings = {"sim_loss_weight": weight, "local_classifier": local}
    immediate, expected = aligned(**settings), aligned(**settings)
    output = immediate.fill_grads(make_batch())
    paper_loss(expected, weight, local).backward()
    for name, gradient in gradients(expected).items():
        is_head = "decoder" in name or ("classifier" in name and not (local and "classifier.1" in name))
        scale = 1 - weight if is_head else 1  # deviation 1
        torch.testing.assert_close(scale * gradients(immediate)[name], gradient, rtol=1e-9, atol=1e-12, msg=name)
    assert [logits is None for logits in output.logits] == [True, True, False]


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize(("weight", "predicts", "matches"), [(0.0, True, False), (1.0, False, True)])
def test_either_loss_can_stand_alone(weight: float, predicts: bool, matches: bool, local: bool) -> None:
    method = make_method("predsim bio", sim_loss_weight=weight, local_classifier=local)
    heads, batch = method.similarity_heads, make_batch()
    assert any("decoder" in name for name, _ in method.named_parameters()) == predicts
    first = method.fill_grads(batch).losses[0]
    features_BCHW = method.backbone.block(0).features(batch.x_BCHW)
    alone = heads["block_00"].similarity_loss if matches else heads["block_00"].prediction_loss
    assert torch.equal(first, alone(features_BCHW, batch.y_B))


def test_every_block_has_targets_of_its_own_and_the_last_without_local_classifier_no_decoder() -> None:
    method = make_method("predsim bio")
    heads = list(method.similarity_heads.values())
    assert not torch.equal(heads[0].code_ND, heads[1].code_ND)
    assert [head.decoder is None for head in heads] == [False, False, True]
    assert [logits is None for logits in method.block_logits(make_batch().x_BCHW)] == [True, True, False]


def test_fixed_numbers_stay_and_the_decoders_learn() -> None:
    method = make_method("predsim bio")
    before = {name: value.clone() for name, value in method.state_dict().items()}
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.1)
    method.fill_grads(make_batch())
    optimizer.step()
    for name, value in method.state_dict().items():
        if name.endswith(("code_ND", ".B")):
            assert torch.equal(value, before[name]), name
        if "decoder" in name and name.endswith("weight"):
            assert not torch.equal(value, before[name]), name


def test_bf16_losses_are_computed_in_float32() -> None:
    method, batch = make_method("predsim bio").float(), make_batch(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output = method.fill_grads(batch)
    assert all(loss.dtype == torch.float32 for loss in output.losses)
    assert all(torch.isfinite(p.grad).all() for p in method.parameters())
