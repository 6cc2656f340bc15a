"""Inpainting and colourising: what the blocks see, what the decoders are asked for, and an oracle by loops."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from consts import block_name
from methods._local import LocalMethod
from schemas import build_args
from tasks._colour import BRIGHTNESS
from tasks.colourise import Colourisation
from tasks.inpaint import MASK
from tests.conftest import gradients, make_batch, make_method, make_spec, strided_backbone
from utils import UsageError

TASKS = {
    "inpaint": {"ssl_task": "inpaint"},
    "inpaint large": {"ssl_task": "inpaint", "upsample": True},
    "colourise": {"ssl_task": "colourise"},
    "colourise large": {"ssl_task": "colourise", "upsample": True},
}


def make(task: str, name: str = "dgl", **settings: object) -> LocalMethod:
    return make_method(name, ssl=True, **TASKS[task], **settings)


@pytest.mark.parametrize("name", ["dgl", "predsim", "infopro"])
@pytest.mark.parametrize("task", TASKS)
def test_without_weight_it_is_the_method_alone(name: str, task: str) -> None:
    plain, weighted = make_method(name), make(task, name, pred_loss_weight=1, ssl_loss_weight=0)
    assert plain.state_dict().keys() == weighted.state_dict().keys()
    for method in (plain, weighted):
        method.fill_grads(make_batch())
    for key, gradient in gradients(plain).items():
        assert torch.equal(gradient, gradients(weighted)[key]), key


@pytest.mark.parametrize("task", TASKS)
def test_damaged_images_stand_behind_the_whole_ones(task: str) -> None:
    method, batch = make(task), make_batch()
    prepared = method.prepare(batch)
    assert torch.equal(prepared.y_B, batch.y_B) and torch.equal(prepared.x_BCHW[:6], batch.x_BCHW)
    damaged_BCHW = prepared.x_BCHW[6:]
    assert damaged_BCHW.shape == batch.x_BCHW.shape
    if task.startswith("colourise"):
        pixels_BCHW = batch.x_BCHW * 0.5 + 0.5
        for b in range(6):
            grey_HW = sum(share * pixels_BCHW[b, c] for c, share in enumerate(BRIGHTNESS))
            for c in range(3):
                torch.testing.assert_close(damaged_BCHW[b, c] * 0.5 + 0.5, grey_HW, rtol=1e-6, atol=1e-7)
    else:
        covered_BHW = prepared.drawn[MASK][:, 0] == 1
        for b in range(6):
            rows, columns = covered_BHW[b].any(1).nonzero().flatten(), covered_BHW[b].any(0).nonzero().flatten()
            assert len(rows) == len(columns) == 4 and covered_BHW[b].sum() == 16  # a filled square
            assert rows[-1] - rows[0] == columns[-1] - columns[0] == 3
            assert not damaged_BCHW[b][:, covered_BHW[b]].any()
            assert torch.equal(damaged_BCHW[b][:, ~covered_BHW[b]], batch.x_BCHW[b][:, ~covered_BHW[b]])


def test_a_grey_image_has_its_brightness_in_every_channel_already() -> None:
    method = make("colourise")
    method.ssl.std_C11 *= torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)[:, None, None]  # channels scaled apart
    pixels_BCHW = torch.rand(4, 1, 8, 8, dtype=torch.float64).expand(4, 3, 8, 8)
    batch = make_batch()._replace(x_BCHW=(pixels_BCHW - method.ssl.mean_C11) / method.ssl.std_C11, y_B=torch.arange(4))
    damaged_BCHW, _ = method.ssl.damage(batch)
    torch.testing.assert_close(damaged_BCHW, batch.x_BCHW, rtol=1e-6, atol=1e-6)


def test_every_place_of_the_mask_is_equally_likely_and_is_drawn_from_the_default_generator() -> None:
    method, batch = make("inpaint"), make_batch(num_images=2000)
    torch.manual_seed(3)
    mask_B1HW = method.prepare(batch).drawn[MASK]
    torch.manual_seed(3)
    assert torch.equal(method.prepare(batch).drawn[MASK], mask_B1HW)
    assert not torch.equal(method.prepare(batch).drawn[MASK], mask_B1HW)
    first_B = mask_B1HW[:, 0].any(2).int().argmax(1)
    counts = torch.bincount(first_B, minlength=5)
    assert len(counts) == 5 and counts.min() > 320 and counts.max() < 480  # 400 expected, deviation 18


def test_images_that_are_not_square_get_half_of_each_side() -> None:
    method = make("inpaint")
    batch = make_batch()._replace(x_BCHW=torch.ones(6, 3, 5, 12, dtype=torch.float64))
    mask_B1HW = method.prepare(batch).drawn[MASK]
    assert mask_B1HW.shape == (6, 1, 5, 12)
    assert (mask_B1HW[:, 0].any(2).sum(1) == 2).all() and (mask_B1HW[:, 0].any(1).sum(1) == 6).all()


def sum_of_losses(method: LocalMethod, task: str, pred: float, ssl: float) -> None:
    """Every graph at once, the errors one pixel at a time, one backward pass."""
    batch, total = make_batch(), torch.zeros((), dtype=torch.float64)
    torch.manual_seed(5)
    prepared = method.prepare(batch)
    h_BCHW = prepared.x_BCHW
    for index in range(3):
        block = method.backbone.block(index)
        features_BCHW = block.features(h_BCHW.detach())
        h_BCHW = block.pool(features_BCHW)
        if index == 2 or pred > 0:
            loss = torch.nn.functional.cross_entropy(method.head(index)(h_BCHW[:6]), batch.y_B)
            total = total + (loss if index == 2 else pred * loss)
        if index == 2:
            continue
        drawn = method.ssl.heads[block_name(index)](features_BCHW[6:])
        size = drawn.shape[-1]
        step, errors, weights = 8 // size, [], []
        for b in range(6):
            for row in range(size):
                for column in range(size):
                    rows, columns = slice(row * step, (row + 1) * step), slice(column * step, (column + 1) * step)
                    weight = 1.0
                    if task.startswith("inpaint"):
                        weight = prepared.drawn[MASK][b, 0, rows, columns].mean().item()
                    for c in range(3):
                        target = batch.x_BCHW[b, c, rows, columns].mean()
                        errors.append(weight * (drawn[b, c, row, column] - target).abs())
                        weights.append(weight)
        total = total + ssl * torch.stack(errors).sum() / sum(weights)
    total.backward()


@pytest.mark.parametrize("weights", [(0.9, 0.1), (0.0, 1.0), (2.0, 3.0)])
@pytest.mark.parametrize("task", TASKS)
def test_equals_the_weighted_sum_of_losses(task: str, weights: tuple[float, float]) -> None:
    settings = {"pred_loss_weight": weights[0], "ssl_loss_weight": weights[1]}
    immediate, oracle = make(task, **settings), make(task, **settings)
    torch.manual_seed(5)
    immediate.fill_grads(make_batch())
    sum_of_losses(oracle, task, *weights)
    for key, gradient in gradients(oracle).items():
        torch.testing.assert_close(gradients(immediate)[key], gradient, rtol=1e-10, atol=1e-13, msg=key)


def test_only_the_masked_part_counts() -> None:
    method, batch = make("inpaint large"), make_batch()
    prepared = method.prepare(batch)
    features_BCHW = method.run_block(0, prepared.x_BCHW).features_BCHW.detach()
    expected = method.ssl.loss(0, features_BCHW, prepared)
    elsewhere = prepared.x_BCHW.clone()
    elsewhere[:6] += 7 * (1 - prepared.drawn[MASK])  # another target, where nothing was masked
    assert torch.equal(method.ssl.loss(0, features_BCHW, prepared._replace(x_BCHW=elsewhere)), expected)
    elsewhere[:6] += 7
    assert not torch.equal(method.ssl.loss(0, features_BCHW, prepared._replace(x_BCHW=elsewhere)), expected)


@pytest.mark.parametrize("task", TASKS)
def test_alone_no_label_reaches_a_block_but_the_last(task: str) -> None:
    method, batch = make(task, pred_loss_weight=0), make_batch()
    torch.manual_seed(5)
    method.fill_grads(batch)
    before = gradients(method)
    method.zero_grad()
    torch.manual_seed(5)
    method.fill_grads(batch._replace(y_B=(batch.y_B + 1) % 5))
    for key, gradient in gradients(method).items():
        assert torch.equal(gradient, before[key]) != ("blocks.2" in key or "classifier" in key), key


@pytest.mark.parametrize("task", TASKS)
def test_pictures_show_the_whole_image_over_what_was_drawn(task: str) -> None:
    method, batch = make(task).eval(), make_batch()
    with torch.no_grad():
        drawn = method.reconstructions(batch)
    assert sorted(drawn) == [0, 1]
    assert torch.equal(drawn[0][0], batch.x_BCHW) and drawn[0][1].shape == batch.x_BCHW.shape
    assert len(drawn[1][0]) == len(drawn[1][1]) == 6


def test_grey_images_have_no_colours() -> None:
    args = build_args({"method": "dgl", "ssl": True, "ssl_task": "colourise"}).method
    spec = dataclasses.replace(make_spec(channels=1), name="mnist")
    with pytest.raises(UsageError, match="the images of mnist are grey; leave it out"):
        Colourisation(args, strided_backbone(), spec, [])
