"""Supervised contrast beside the other losses: only weights, an oracle, and who learns from it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from consts import block_name
from methods._local import LocalMethod
from objectives.contrastive import supervised_contrastive
from tests.conftest import gradients, make_batch, make_method


def test_its_heads_come_last_so_the_others_start_alike() -> None:
    plain, weighted = make_method("dgl ssl"), make_method("dgl ssl", supcon_loss_weight=1)
    for key, value in plain.state_dict().items():
        assert torch.equal(value, weighted.state_dict()[key]), key


def oracle(method: LocalMethod, weights: tuple[float, float, float]) -> torch.Tensor:
    """Every graph at once: the weighted sum of the three losses of every block but the last, and the last's own."""
    batch, total = make_batch(), torch.zeros((), dtype=torch.float64)
    h_BCHW = batch.x_BCHW
    for index in range(3):
        block = method.backbone.block(index)
        features_BCHW = block.features(h_BCHW.detach())
        h_BCHW = block.pool(features_BCHW)
        if index == 2:
            return total + F.cross_entropy(method.head(index)(h_BCHW), batch.y_B)
        if weights[0]:
            total = total + weights[0] * F.cross_entropy(method.head(index)(h_BCHW), batch.y_B)
        if weights[1]:
            total = total + weights[1] * method.ssl.loss(index, features_BCHW, batch)
        z_BD = method.supcon.heads[block_name(index)](features_BCHW)
        total = total + weights[2] * supervised_contrastive(z_BD, batch.y_B, 0.3)
    raise AssertionError


@pytest.mark.parametrize("weights", [(1, 0, 0.5), (0.9, 0.1, 0.2), (0, 1, 2), (0, 0, 1)])
def test_any_mixture_is_only_weights(weights: tuple[float, float, float]) -> None:
    settings = {"supcon_loss_weight": weights[2], "contrast_temperature": 0.3}
    if weights[:2] != (1, 0):
        settings |= {"ssl": True, "pred_loss_weight": weights[0], "ssl_loss_weight": weights[1]}
    immediate, summed = (make_method("dgl", **settings) for _ in range(2))
    output = immediate.fill_grads(make_batch())
    oracle(summed, weights).backward()
    for key, gradient in gradients(summed).items():
        torch.testing.assert_close(gradients(immediate)[key], gradient, rtol=1e-10, atol=1e-13, msg=key)
    assert [logits is None for logits in output.logits] == [weights[0] == 0] * 2 + [False]
    assert {name.partition("/")[2] for name in output.metrics} == {
        name for name, weight in zip(("pred_loss", "ssl_loss", "supcon_loss"), weights, strict=True) if weight
    }


def test_images_without_labels_are_left_out() -> None:
    method = make_method("dgl ssl rotate", supcon_loss_weight=1)
    batch = make_batch()
    prepared = method.prepare(batch)
    hidden = method.run_block(0, prepared.x_BCHW)
    expected = method.supcon.loss(0, hidden.features_BCHW[:6], batch)
    assert torch.equal(method.supcon.loss(0, hidden.features_BCHW, prepared), expected)


def test_a_batch_of_one_trains() -> None:
    method = make_method("dgl", supcon_loss_weight=1).eval()  # BatchNorm refuses one image in training
    method.fill_grads(make_batch(num_images=1))
    assert all(torch.isfinite(p.grad).all() for p in method.parameters())
