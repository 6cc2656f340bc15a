"""Local critics against back-propagation, greedy learning, and the paper's losses written out."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from consts import CASCADE_LOSS, block_name
from datamodules.base import Batch
from methods.critic import LocalCritic
from tests.conftest import gradients, make_batch, make_method
from tests.methods.test_modules import five_blocks

BLOCKS = range(3)


def make(case: str = "critic", **settings: object) -> LocalCritic:
    method = make_method(case, **settings)
    assert isinstance(method, LocalCritic)
    return method


def copy_of_what_lies_above(method: LocalCritic, index: int) -> nn.Module:
    backbone = method.backbone
    return copy.deepcopy(nn.Sequential(*backbone.blocks[index + 1 :], backbone.classifier))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("first", [0, 1])
def test_critics_that_copy_what_lies_above_give_back_propagation(first: int, smoothing: float) -> None:
    settings = {"first_trainable_block": first, "label_smoothing": smoothing}
    method, reference = make(**settings), make_method("bp", **settings)
    for index in range(first, method.last):
        method.heads[block_name(index)] = copy_of_what_lies_above(method, index)
    output = method.fill_grads(make_batch())
    reference.fill_grads(make_batch())
    for (name, expected), found in zip(
        reference.backbone.named_parameters(), method.backbone.parameters(), strict=True
    ):
        assert (expected.grad is None) == (found.grad is None), name
        assert found.grad is None or torch.equal(found.grad, expected.grad), name
    # They have nothing left to learn: the next losses are theirs to the bit, and |x| has slope 0 at 0.
    for index in range(first, method.last):
        assert output.metrics[f"{block_name(index)}/{CASCADE_LOSS}"] == 0
        assert all(p.grad is not None and not p.grad.any() for p in method.head(index).parameters())


@pytest.mark.parametrize("head", ["conv", "cnn", "pooled"])
def test_blocks_learn_as_in_greedy_learning_with_the_same_heads(head: str) -> None:
    method, greedy = make(pred_aux_type=head), make_method("dgl", pred_aux_type=head)
    outputs = [each.fill_grads(make_batch()) for each in (method, greedy)]
    for ours, theirs in zip(method.backbone.parameters(), greedy.backbone.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)
    for ours, theirs in zip(outputs[0].losses, outputs[1].losses, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("case", ["critic", "critic normalised"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_the_losses_of_single_images_written_out(case: str, smoothing: float) -> None:
    method, oracle = (make(case, label_smoothing=smoothing) for _ in range(2))
    batch, weight = make_batch(), method.args.cascade_loss_weight
    output = method.fill_grads(batch)
    losses: list[list[torch.Tensor]] = []
    h_BCHW = batch.x_BCHW
    for index in BLOCKS:
        h_BCHW = oracle.backbone.block(index)(h_BCHW.detach())
        logits_BN = oracle.head(index)(h_BCHW)
        losses.append([
            F.cross_entropy(logits_BN[i : i + 1], batch.y_B[i : i + 1], label_smoothing=smoothing) for i in range(6)
        ])  # fmt: skip
    for index in BLOCKS:
        own = [*oracle.backbone.block(index).parameters()]
        critic = [*oracle.head(index).parameters()]
        expected = [torch.zeros_like(p) for p in own + critic]
        for image, loss in enumerate(losses[index]):
            slopes = torch.autograd.grad(loss / 6, own + critic, retain_graph=True)
            sign = weight * torch.sign(loss - losses[index + 1][image]).detach() if index < 2 else 1
            for total, slope, factor in zip(expected, slopes, [1] * len(own) + [sign] * len(critic), strict=True):
                total += factor * slope
        found = [*method.backbone.block(index).parameters(), *method.head(index).parameters()]
        for parameter, total in zip(found, expected, strict=True):
            torch.testing.assert_close(parameter.grad, total, rtol=1e-9, atol=1e-14)
        assert output.losses[index].item() == pytest.approx(sum(losses[index]).item() / 6, rel=1e-12)
    for index in (0, 1):
        apart = [abs(one - other) for one, other in zip(losses[index], losses[index + 1], strict=True)]
        cascade = output.metrics[f"{block_name(index)}/{CASCADE_LOSS}"].item()
        assert cascade == pytest.approx(sum(apart).item() / 6, rel=1e-12)


def test_the_oracle_meets_critics_that_are_too_good_and_too_poor() -> None:
    """Without images of both kinds in each critic, the signs above would say nothing."""
    method, batch = make(), make_batch()
    with torch.no_grad():
        losses = [method.image_losses(logits_BN, batch.y_B) for logits_BN in method.block_logits(batch.x_BCHW)]
    for index in (0, 1):
        assert 0 < (losses[index] > losses[index + 1]).sum() < 6


def test_a_critic_learns_alone() -> None:
    """Its loss reaches neither its block nor the next critic."""
    method, batch = make(), make_batch()
    logits: list[torch.Tensor] = []
    h_BCHW = batch.x_BCHW
    for index in BLOCKS:
        hidden = method.run_block(index, h_BCHW.detach())
        logits.append(method.block_loss(index, hidden, batch)[1])
        h_BCHW = hidden.out_BCHW
    assert not any(p.grad is not None for p in method.parameters())
    method.fill_critic_grads(0, logits[0], logits[1], batch.y_B)
    own = {id(p) for p in method.head(0).parameters()}
    for name, parameter in method.named_parameters():
        assert (parameter.grad is not None) == (id(parameter) in own), name


@pytest.mark.parametrize(("bias", "sign"), [(5.0, -1), (-5.0, 1)])
def test_a_critic_that_is_too_good_is_made_worse(bias: float, sign: int) -> None:
    """Where it is too poor for every image it learns as a greedy head; too good, with the opposite sign."""
    x_BCHW, y_B, *_ = make_batch()
    batch = Batch(x_BCHW, torch.full_like(y_B, 2))
    method, greedy = make(), make_method("dgl", pred_aux_type="conv")
    for each in (method, greedy):
        with torch.no_grad():
            each.head(0)[-1][-1].bias[2] += bias
    before = method.fill_grads(batch).losses[0]
    greedy.fill_grads(batch)
    for ours, theirs in zip(method.head(0).parameters(), greedy.head(0).parameters(), strict=True):
        assert torch.equal(ours.grad, sign * theirs.grad)
    with torch.no_grad():
        for parameter in method.head(0).parameters():
            parameter -= 0.1 * parameter.grad
    assert torch.sign(before - method.fill_grads(batch).losses[0]) == sign


def test_the_weight_scales_the_critics_gradients_only() -> None:
    plain, half, still = (make(cascade_loss_weight=weight) for weight in (1, 0.5, 0))
    for method in (plain, half, still):
        method.fill_grads(make_batch())
    for key, gradient in gradients(plain).items():
        factors = (0.5, 0) if key.startswith("heads.") else (1, 1)
        for method, factor in zip((half, still), factors, strict=True):
            assert torch.equal(gradients(method)[key], factor * gradient), key


def test_critics_of_modules_look_at_the_next_module() -> None:
    method = make_method("critic", five_blocks(), module_ends=(1, 2))
    output = method.fill_grads(make_batch())
    assert list(method.heads) == [block_name(0), block_name(1)]
    losses = [method.image_losses(logits_BN, make_batch().y_B) for logits_BN in output.logits]
    for index in (0, 1):
        cascade = output.metrics[f"{block_name(index)}/{CASCADE_LOSS}"]
        assert cascade == (losses[index] - losses[index + 1]).abs().mean()


@pytest.mark.parametrize("settings", [{"ssl": True}, {"supcon_loss_weight": 0.5}])
def test_another_task_changes_blocks_and_not_critics(settings: dict[str, object]) -> None:
    both, alone = make(pred_loss_weight=1.0, **settings), make()
    alone.load_state_dict(both.state_dict(), strict=False)
    outputs = [method.fill_grads(make_batch()) for method in (both, alone)]
    changed = 0
    for key, gradient in gradients(alone).items():
        same = torch.equal(gradients(both)[key], gradient)
        assert same or key.startswith("backbone.blocks."), key
        changed += not same
    assert changed
    for key, value in outputs[1].metrics.items():
        assert torch.equal(outputs[0].metrics[key], value)


def test_without_a_weight_for_labels_there_are_no_critics() -> None:
    method = make(ssl=True, pred_loss_weight=0)
    output = method.fill_grads(make_batch())
    assert not method.heads and not any(CASCADE_LOSS in key for key in output.metrics)
    assert [logits is None for logits in output.logits] == [True, True, False]
