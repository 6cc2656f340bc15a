"""InfoPro against its limit cases and the paper's loss."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from consts import block_name, loss_name
from methods.infopro import RECONSTRUCTION, InfoPro
from objectives.contrastive import supervised_contrastive
from tests.conftest import gradients, make_batch, make_method

WITHOUT_PIXELS = {
    "label_loss": "softmax", "reconstruction_weight_first": 0, "reconstruction_weight_last": 0,
    "label_weight_first": 1, "label_weight_last": 1,
}  # fmt: skip


@pytest.mark.parametrize("head", ["pooled", "1c2f", "cnn", "cnn_full"])
def test_without_pixels_it_is_dgl(head: str) -> None:
    ours = make_method("infopro", pred_aux_type=head, **WITHOUT_PIXELS)
    greedy = make_method("dgl", pred_aux_type=head)
    assert ours.state_dict().keys() == greedy.state_dict().keys()
    outputs = [method.fill_grads(make_batch()) for method in (ours, greedy)]
    for key, gradient in gradients(greedy).items():
        assert torch.equal(gradient, gradients(ours)[key]), key
    for a, b in zip(outputs[0].losses, outputs[1].losses, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("label_loss", ["softmax", "contrast"])
@pytest.mark.parametrize("weights", [(5, 0.2, 0.05, 0.5), (6, 1, 0, 2), (5, 0, 1, 0.5)])
def test_equals_the_weighted_sum_of_losses(label_loss: str, weights: tuple[float, ...]) -> None:
    names = ("reconstruction_weight_first", "reconstruction_weight_last", "label_weight_first", "label_weight_last")
    settings = dict(zip(names, weights, strict=True)) | {"label_loss": label_loss}
    immediate, oracle = (make_method("infopro", **settings) for _ in range(2))
    assert isinstance(oracle, InfoPro) and oracle.reconstruction is not None
    output = immediate.fill_grads(make_batch())
    batch, total = make_batch(), torch.zeros((), dtype=torch.float64)
    pixels_BCHW = (batch.x_BCHW * 0.5 + 0.5).clamp(0, 1)
    h_BCHW = batch.x_BCHW
    for index in range(3):
        block = oracle.backbone.block(index)
        features_BCHW = block.features(h_BCHW.detach())
        h_BCHW = block.pool(features_BCHW)
        if index == 2:
            total = total + F.cross_entropy(oracle.head(index)(h_BCHW), batch.y_B)
            break
        pixel_weight, label_weight = (weights[0], weights[2]) if index == 0 else (weights[1], weights[3])
        if pixel_weight:
            drawn_BCHW = oracle.reconstruction.heads[block_name(index)](features_BCHW).sigmoid()
            total = total + pixel_weight * F.binary_cross_entropy(drawn_BCHW, pixels_BCHW)
        if label_weight and label_loss == "softmax":
            total = total + label_weight * F.cross_entropy(oracle.head(index)(h_BCHW), batch.y_B)
        elif label_weight:
            total = total + label_weight * supervised_contrastive(oracle.head(index)(h_BCHW), batch.y_B, 0.07)
    total.backward()
    for key, gradient in gradients(oracle).items():
        torch.testing.assert_close(gradients(immediate)[key], gradient, rtol=1e-9, atol=1e-12, msg=key)
    exits = [label_loss == "softmax" and weight > 0 for weight in weights[2:]]
    assert [logits is not None for logits in output.logits] == [*exits, True]


def test_weights_are_linear_in_depth() -> None:
    from tests.methods.test_modules import five_blocks

    method = make_method("infopro", five_blocks(), model="VGG8c")
    found = [method.weight(RECONSTRUCTION, index) for index in range(4)]
    assert found == pytest.approx([5, 5 - 1.6, 5 - 3.2, 0.2])
    assert [method.weight("pred_loss", index) for index in range(4)] == pytest.approx([0.05, 0.2, 0.35, 0.5])
    two = make_method("infopro", num_modules=2)
    assert (two.weight(RECONSTRUCTION, 0), two.weight("pred_loss", 0)) == (5, 0.05)


def test_a_head_without_weight_is_not_built() -> None:
    method = make_method("infopro", label_weight_first=0, reconstruction_weight_last=0)
    assert list(method.heads) == [block_name(1)]
    assert method.reconstruction is not None and list(method.reconstruction.heads) == [block_name(0)]


def test_a_silent_decoder_costs_ln_2_and_draws_grey() -> None:
    method, batch = make_method("infopro"), make_batch()
    with torch.no_grad():
        for parameter in method.reconstruction.parameters():
            parameter.zero_()
        pictures = method.eval().reconstructions(batch)
    assert sorted(pictures) == [0, 1]
    assert torch.equal(pictures[0][0], batch.x_BCHW) and not pictures[0][1].any()  # 0.5 normalised
    loss = method.fill_grads(batch).metrics[f"{block_name(0)}/{loss_name(RECONSTRUCTION)}"]
    assert loss.item() == pytest.approx(math.log(2))
