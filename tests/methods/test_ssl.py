"""Self-supervised tasks: limit cases, an oracle that sums all losses, and what each task shows its head."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from consts import block_name
from datamodules.base import LABELLED, DataSpec
from methods._local import LocalMethod
from schemas import build_args
from tasks.rotate import Rotation
from tests.conftest import gradients, make_batch, make_method, strided_backbone
from utils import UsageError

TASKS = {
    "reconstruct": {},
    "reconstruct large": {"upsample": True},
    "shift": {"ssl_task": "shift", "upsample": True},
    "rotate": {"ssl_task": "rotate"},
}


def make(name: str = "dgl", task: str = "reconstruct", **settings: object) -> LocalMethod:
    return make_method(name, ssl=True, **TASKS[task], **settings)


@pytest.mark.parametrize("name", ["dgl", "predsim"])
@pytest.mark.parametrize("task", TASKS)
def test_without_weight_it_is_the_method_alone(name: str, task: str) -> None:
    plain, weighted = make_method(name), make(name, task, pred_loss_weight=1, ssl_loss_weight=0)
    assert plain.state_dict().keys() == weighted.state_dict().keys()
    outputs = [method.fill_grads(make_batch()) for method in (plain, weighted)]
    for key, gradient in gradients(plain).items():
        assert torch.equal(gradient, gradients(weighted)[key]), key
    for ours, theirs in zip(outputs[0].losses, outputs[1].losses, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["dgl", "predsim"])
@pytest.mark.parametrize("task", TASKS)
def test_its_heads_come_last_so_the_others_start_alike(name: str, task: str) -> None:
    plain, weighted = make_method(name), make(name, task)
    for key, value in plain.state_dict().items():
        if "similarity" not in key:  # drawn after the family's heads
            assert torch.equal(value, weighted.state_dict()[key]), key


def sum_of_losses(method: LocalMethod, task: str, pred: float, ssl: float) -> None:
    """Every graph at once, the tasks written out by hand, one backward pass."""
    batch, total = make_batch(), torch.zeros((), dtype=torch.float64)
    x_BCHW = batch.x_BCHW
    if task == "rotate":
        turned = [torch.rot90(image, b % 4, (1, 2)) for b, image in enumerate(x_BCHW)]
        x_BCHW = torch.cat((x_BCHW, torch.stack(turned)))
    h_BCHW = x_BCHW
    for index in range(3):
        block = method.backbone.block(index)
        features_BCHW = block.features(h_BCHW.detach())
        h_BCHW = block.pool(features_BCHW)
        loss = F.cross_entropy(method.head(index)(h_BCHW[:6]), batch.y_B) if index == 2 or pred > 0 else 0
        if index == 2:
            total = total + loss
            continue
        head = method.ssl.heads[block_name(index)]
        if task == "rotate":
            own = F.cross_entropy(head(features_BCHW[6:]), torch.tensor([0, 1, 2, 3, 0, 1]))
        else:
            drawn = head(features_BCHW)
            target = batch.x_BCHW
            if drawn.shape[-1] < 8:
                target = F.avg_pool2d(target, 8 // drawn.shape[-1])
            if task == "shift":
                target = torch.roll(target, 4, 3).roll(4, 2)
            own = (drawn - target).abs().mean()
        total = total + pred * loss + ssl * own
    total.backward()


@pytest.mark.parametrize("weights", [(0.9, 0.1), (0.5, 0.5), (0.0, 1.0), (2.0, 3.0)])
@pytest.mark.parametrize("task", TASKS)
def test_equals_the_weighted_sum_of_losses(task: str, weights: tuple[float, float]) -> None:
    settings = {"pred_loss_weight": weights[0], "ssl_loss_weight": weights[1]}
    immediate, oracle = make(task=task, **settings), make(task=task, **settings)
    immediate.fill_grads(make_batch())
    sum_of_losses(oracle, task, *weights)
    for key, gradient in gradients(oracle).items():
        torch.testing.assert_close(gradients(immediate)[key], gradient, rtol=1e-12, atol=1e-14, msg=key)


@pytest.mark.parametrize("task", TASKS)
def test_alone_no_label_reaches_a_block_but_the_last(task: str) -> None:
    method, batch = make(task=task, pred_loss_weight=0), make_batch()
    output = method.fill_grads(batch)
    assert [logits is None for logits in output.logits] == [True, True, False]
    assert not method.heads
    before = gradients(method)
    method.zero_grad()
    method.fill_grads(batch._replace(y_B=(batch.y_B + 1) % 5))
    for key, gradient in gradients(method).items():
        above = "blocks.2" in key or "classifier" in key
        assert torch.equal(gradient, before[key]) != above, key


def test_the_last_block_learns_from_its_classifier_alone() -> None:
    plain, weighted = make_method("dgl"), make(pred_loss_weight=0.3, ssl_loss_weight=5)
    for method in (plain, weighted):
        method.fill_grads(make_batch())
    for key, gradient in gradients(plain).items():
        if "blocks.2" in key or "classifier" in key:
            assert torch.equal(gradient, gradients(weighted)[key]), key
    assert block_name(2) not in weighted.ssl.heads


def test_both_losses_are_reported_without_their_weights() -> None:
    output = make(pred_loss_weight=0.5, ssl_loss_weight=2).fill_grads(make_batch())
    for index in range(2):
        pred, ssl = (output.metrics[f"{block_name(index)}/{part}"] for part in ("pred_loss", "ssl_loss"))
        torch.testing.assert_close(output.losses[index], 0.5 * pred + 2 * ssl)
    assert len(output.metrics) == 4


def test_turned_images_stand_behind_the_upright_ones() -> None:
    method, batch = make(task="rotate"), make_batch()
    prepared = method.prepare(batch)
    assert torch.equal(prepared.x_BCHW[:6], batch.x_BCHW)
    for b in range(6):
        assert torch.equal(prepared.x_BCHW[6 + b], torch.rot90(batch.x_BCHW[b], b % 4, (1, 2)))
    hidden = method.run_block(0, prepared.x_BCHW)
    assert batch.part(hidden.out_BCHW, LABELLED).shape[0] == 6


def test_images_that_are_not_square_cannot_be_turned() -> None:
    spec = DataSpec("wide", 3, 8, 16, tuple("abcde"), (0.5,) * 3, (0.5,) * 3)
    args = build_args({"method": "dgl", "ssl": True, "ssl_task": "rotate"}).method
    with pytest.raises(UsageError, match="must be square, but these are 8x16"):
        Rotation(args, strided_backbone(), spec, [])


@pytest.mark.parametrize("task", ["reconstruct", "reconstruct large", "shift"])
def test_reconstructions_are_what_the_loss_compares(task: str) -> None:
    method, batch = make(task=task, pred_loss_weight=0, ssl_loss_weight=1).eval(), make_batch()
    with torch.no_grad():
        drawn = method.reconstructions(batch)
        assert sorted(drawn) == [0, 1]
        hidden = method.run_block(0, batch.x_BCHW)
        expected = method.ssl.loss(0, hidden.features_BCHW, batch)
    target, image = drawn[0]
    assert target.shape == image.shape == (6, 3, 8, 8)
    assert (target - image).abs().mean() == expected
    assert torch.equal(target, batch.x_BCHW.roll((4, 4), (2, 3)) if task == "shift" else batch.x_BCHW)


@pytest.mark.parametrize("settings", [{}, {"ssl": True, "ssl_task": "rotate"}])
def test_methods_without_decoders_draw_nothing(settings: dict) -> None:
    assert not make_method("dgl", **settings).reconstructions(make_batch())
    assert not make_method("bp").reconstructions(make_batch())


def test_a_decoder_learns_to_give_back_the_image() -> None:
    method = make(task="reconstruct large", pred_loss_weight=0, ssl_loss_weight=1)
    optimizer = torch.optim.Adam(method.param_groups(), lr=0.01)
    losses = []
    for _ in range(60):
        losses.append(method.fill_grads(make_batch()).losses[0].item())
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.5 * losses[0]


def test_a_batch_that_does_not_divide_by_four_can_be_turned() -> None:
    output = make(task="rotate").fill_grads(make_batch(num_images=5))
    assert [logits.shape for logits in output.logits] == [(5, 5)] * 3
