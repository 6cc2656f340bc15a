"""Contrast of views beside the other losses: only weights, an oracle, and which images serve which loss."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from consts import block_name
from methods._local import LocalMethod
from objectives.contrastive import simclr, supervised_contrastive
from tests.conftest import gradients, make_batch, make_method

TASKS = {"reconstruct": {}, "rotate": {"ssl_task": "rotate"}, "colourise": {"ssl_task": "colourise"}}


def test_its_heads_come_last_so_the_others_start_alike() -> None:
    plain, weighted = (make_method("dgl ssl supcon", simclr_loss_weight=weight) for weight in (0, 1))
    for key, value in plain.state_dict().items():
        assert torch.equal(value, weighted.state_dict()[key]), key


@pytest.mark.parametrize("name", ["dgl", "predsim", "infopro"])
def test_without_weight_it_is_the_method_alone_and_no_second_view_is_asked_for(name: str) -> None:
    plain, weighted = make_method(name), make_method(name, simclr_loss_weight=0)
    assert not weighted.two_views and make_method(name, simclr_loss_weight=1).two_views
    outputs = [
        method.fill_grads(batch)
        for method, batch in ((plain, make_batch()), (weighted, make_batch()._replace(second_BCHW=None)))
    ]
    for key, gradient in gradients(plain).items():
        assert torch.equal(gradient, gradients(weighted)[key]), key
    assert all(torch.equal(a, b) for a, b in zip(outputs[0].losses, outputs[1].losses, strict=True))


def oracle(method: LocalMethod, weights: tuple[float, float, float, float], task: str) -> torch.Tensor:
    """Every graph at once: the weighted sum of the four losses of every block but the last, and the last's own."""
    batch, total = make_batch(), torch.zeros((), dtype=torch.float64)
    parts = [batch.x_BCHW, batch.second_BCHW]
    if weights[1] and task == "rotate":
        parts.append(torch.stack([torch.rot90(image, b % 4, (1, 2)) for b, image in enumerate(batch.x_BCHW)]))
    if weights[1] and task == "colourise":
        parts.append(method.ssl.damage(batch)[0])
    h_BCHW = torch.cat(parts)
    for index in range(3):
        block = method.backbone.block(index)
        features_BCHW = block.features(h_BCHW.detach())
        h_BCHW = block.pool(features_BCHW)
        if index == 2:
            return total + F.cross_entropy(method.head(index)(h_BCHW[:6]), batch.y_B)
        if weights[0]:
            total = total + weights[0] * F.cross_entropy(method.head(index)(h_BCHW[:6]), batch.y_B)
        if weights[1]:
            head = method.ssl.heads[block_name(index)]
            if task == "rotate":
                own = F.cross_entropy(head(features_BCHW[12:]), torch.tensor([0, 1, 2, 3, 0, 1]))
            else:
                drawn_BCHW = head(features_BCHW[:6] if task == "reconstruct" else features_BCHW[12:])
                own = (drawn_BCHW - F.adaptive_avg_pool2d(batch.x_BCHW, drawn_BCHW.shape[2:])).abs().mean()
            total = total + weights[1] * own
        if weights[2]:
            z_BD = method.supcon.heads[block_name(index)](features_BCHW[:6])
            total = total + weights[2] * supervised_contrastive(z_BD, batch.y_B, 0.1)
        z_VD = method.simclr.heads[block_name(index)](features_BCHW[:12])
        total = total + weights[3] * simclr(z_VD, 0.4)
    raise AssertionError


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("weights", [(1, 0, 0, 0.5), (0.9, 0.1, 0.2, 0.3), (0, 1, 0, 2), (0, 0, 0, 1)])
def test_any_mixture_is_only_weights(weights: tuple[float, float, float, float], task: str) -> None:
    settings = {"supcon_loss_weight": weights[2], "simclr_loss_weight": weights[3], "simclr_temperature": 0.4}
    if weights[:2] != (1, 0):
        settings |= {"ssl": True, "pred_loss_weight": weights[0], "ssl_loss_weight": weights[1]} | TASKS[task]
    immediate, summed = (make_method("dgl", **settings) for _ in range(2))
    output = immediate.fill_grads(make_batch())
    oracle(summed, weights, task).backward()
    for key, gradient in gradients(summed).items():
        torch.testing.assert_close(gradients(immediate)[key], gradient, rtol=1e-10, atol=1e-13, msg=key)
    names = ("pred_loss", "ssl_loss", "supcon_loss", "simclr_loss")
    expected = {name for name, weight in zip(names, weights, strict=True) if weight}
    assert {name.partition("/")[2] for name in output.metrics} == expected


def test_alone_no_label_reaches_a_block_but_the_last() -> None:
    alone = {"ssl": True, "pred_loss_weight": 0, "ssl_loss_weight": 0, "simclr_loss_weight": 1}
    method, batch = make_method("dgl", **alone), make_batch()
    method.fill_grads(batch)
    before = gradients(method)
    method.zero_grad()
    method.fill_grads(batch._replace(y_B=(batch.y_B + 1) % 5))
    for key, gradient in gradients(method).items():
        assert torch.equal(gradient, before[key]) != ("blocks.2" in key or "classifier" in key), key


def test_a_batch_with_one_view_is_refused_in_training_and_drawn_otherwise() -> None:
    method, batch = make_method("dgl ssl", simclr_loss_weight=1), make_batch()._replace(second_BCHW=None)
    with pytest.raises(ValueError, match=r"no images named .second view."):
        method.fill_grads(batch)
    drawn = method.eval().reconstructions(batch)
    assert sorted(drawn) == [0, 1] and len(drawn[0][1]) == 6


def test_parameters_of_tasks_keep_the_order_that_checkpoints_have() -> None:
    """torch finds an optimiser's state by position: two views first, then the task of --ssl, then the others."""
    assert [*make_method("dgl ssl supcon simclr").tasks] == ["simclr", "ssl", "supcon"]
