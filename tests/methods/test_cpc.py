"""Predictive coding: the definition by loops, chance, which blocks take part, and only weights beside the rest."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from consts import block_name
from datamodules.base import Batch
from heads.prediction import RowPrediction, num_predicted
from methods._local import LocalMethod
from model import Shape
from tasks.cpc import CANDIDATES
from tests.conftest import gradients, make_batch, make_method, strided_backbone
from utils import UsageError

ALONE = {"ssl": True, "pred_loss_weight": 0, "ssl_loss_weight": 0, "cpc_loss_weight": 1}


def by_loops(method: LocalMethod, index: int, features_BCHW: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The definition, one score at a time; maps of the tests are 8x8 and 4x4."""
    head = method.cpc.heads[block_name(index)]
    z = features_BCHW
    if z.shape[2] == 8:  # to 7x7, with windows of two that overlap by one
        z = F.avg_pool2d(z, 2, 1)
    num_images, num_channels, height, width = z.shape
    num_steps = min(5, height - 2)
    weights = head.predictor.weight.view(num_steps, num_channels, num_channels)
    means = []
    for k in range(1, num_steps + 1):
        losses = []
        for b in range(num_images):
            for row in range(height - k - 1):
                for column in range(width):
                    context = z[b, :, row, column]
                    candidates = [z[b, :, row + k + 1, column]]
                    for number in batch.drawn[CANDIDATES][b, row * width + column].tolist():
                        num_below = (height - k - 1) * width  # positions of an image that are predicted
                        image, position = divmod(number % (num_images * num_below), num_below)
                        candidates.append(z[image, :, k + 1 + position // width, position % width])
                    scores = torch.stack([candidate @ weights[k - 1] @ context for candidate in candidates])
                    losses.append(F.cross_entropy(scores[None], torch.tensor([0])))
        means.append(torch.stack(losses).mean())
    return torch.stack(means).mean()


@pytest.mark.parametrize("weights", [(1, 0.5), (0, 1), (0.3, 2)])
def test_equals_the_weighted_sum_of_losses_by_loops(weights: tuple[float, float]) -> None:
    settings = {"cpc_loss_weight": weights[1]}
    if weights[0] != 1:
        settings |= {"ssl": True, "pred_loss_weight": weights[0], "ssl_loss_weight": 0}
    immediate, oracle = (make_method("dgl cpc", **settings) for _ in range(2))
    batch = make_batch(num_images=3)
    torch.manual_seed(5)
    output = immediate.fill_grads(batch)
    torch.manual_seed(5)
    prepared, total = oracle.prepare(batch), torch.zeros((), dtype=torch.float64)
    h_BCHW = batch.x_BCHW
    for index in range(3):
        block = oracle.backbone.block(index)
        features_BCHW = block.features(h_BCHW.detach())
        h_BCHW = block.pool(features_BCHW)
        if index == 2 or weights[0]:
            loss = F.cross_entropy(oracle.head(index)(h_BCHW), batch.y_B)
            total = total + (loss if index == 2 else weights[0] * loss)
        if index < 2:
            own = by_loops(oracle, index, features_BCHW, prepared)
            torch.testing.assert_close(output.metrics[f"{block_name(index)}/cpc_loss"], own.detach())
            total = total + weights[1] * own
    total.backward()
    for key, gradient in gradients(oracle).items():
        torch.testing.assert_close(gradients(immediate)[key], gradient, rtol=1e-9, atol=1e-12, msg=key)


@pytest.mark.parametrize("name", ["dgl", "predsim", "infopro"])
def test_without_weight_it_is_the_method_alone(name: str) -> None:
    plain, weighted = make_method(name), make_method(name, cpc_loss_weight=0)
    for method in (plain, weighted):
        method.fill_grads(make_batch())
    for key, gradient in gradients(plain).items():
        assert torch.equal(gradient, gradients(weighted)[key]), key


def test_its_heads_come_last_so_the_others_start_alike() -> None:
    plain, weighted = (make_method("dgl ssl supcon simclr", cpc_loss_weight=weight) for weight in (0, 1))
    for key, value in plain.state_dict().items():
        assert torch.equal(value, weighted.state_dict()[key]), key


def test_without_weights_it_is_at_chance() -> None:
    method = make_method("dgl cpc")
    with torch.no_grad():
        for head in method.cpc.heads.values():
            head.predictor.weight.zero_()
    output = method.fill_grads(make_batch())
    for index in range(2):
        assert output.metrics[f"{block_name(index)}/cpc_loss"].item() == pytest.approx(math.log(17))


def test_candidates_are_those_of_the_default_generator_and_new_in_every_step() -> None:
    method, batch = make_method("dgl cpc"), make_batch()
    torch.manual_seed(3)
    first = method.prepare(batch).drawn[CANDIDATES]
    torch.manual_seed(3)
    assert torch.equal(method.prepare(batch).drawn[CANDIDATES], first)
    assert not torch.equal(method.prepare(batch).drawn[CANDIDATES], first)
    assert first.shape == (6, 35, 16) and first.min() >= 0


@pytest.mark.parametrize(
    ("shape", "count"), [((32, 32), 5), ((8, 8), 5), ((7, 7), 5), ((4, 4), 2), ((3, 9), 1), ((2, 8), 0), ((1, 1), 0)]
)
def test_as_many_rows_are_predicted_as_lie_below(shape: tuple[int, int], count: int) -> None:
    assert num_predicted(Shape(4, *shape)) == count
    if count:
        z_BCHW, predicted_BKCHW = RowPrediction(Shape(4, *shape))(torch.ones(2, 4, *shape))
        assert max(z_BCHW.shape[2:]) <= 7
        assert predicted_BKCHW.shape == (2, count, *z_BCHW.shape[1:])


def test_blocks_with_small_maps_take_no_part() -> None:
    method = make_method("dgl cpc", strided_backbone())
    assert list(method.cpc.heads) == ["block_00"]
    names = set(method.fill_grads(make_batch()).metrics)
    assert names == {"block_00/pred_loss", "block_00/cpc_loss", "block_01/pred_loss"}


def test_images_appended_for_others_are_left_out() -> None:
    method, batch = make_method("dgl cpc", ssl=True, ssl_task="rotate", simclr_loss_weight=1), make_batch()
    prepared = method.prepare(batch)
    assert len(prepared.x_BCHW) == 18
    features_BCHW = method.run_block(0, prepared.x_BCHW).features_BCHW
    expected = method.cpc.loss(0, features_BCHW[:6], prepared)
    assert torch.equal(method.cpc.loss(0, features_BCHW, prepared), expected)


def test_alone_no_label_reaches_a_block_but_the_last() -> None:
    method, batch = make_method("dgl cpc", **ALONE), make_batch()
    torch.manual_seed(5)
    method.fill_grads(batch)
    before = gradients(method)
    method.zero_grad()
    torch.manual_seed(5)
    method.fill_grads(batch._replace(y_B=(batch.y_B + 1) % 5))
    for key, gradient in gradients(method).items():
        assert torch.equal(gradient, before[key]) != ("blocks.2" in key or "classifier" in key), key


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("dgl", ALONE),
        ("infopro", {"cpc_loss_weight": 1, "reconstruction_weight_last": 0, "label_weight_last": 0}),
        ("infopro", {**ALONE, "reconstruction_weight_last": 0}),
    ],
)
def test_a_block_must_have_something_to_learn_from(name: str, settings: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="block_01 would learn nothing: its map of 2x2 is too small"):
        make_method(name, strided_backbone(), **settings)
    make_method(name, strided_backbone(stride=1), **settings)
    make_method(name, strided_backbone(), **settings, supcon_loss_weight=1)


def test_some_block_must_be_able_to_predict() -> None:
    with pytest.raises(UsageError, match=r"needs maps of 3 rows or more.*no block but the last has one"):
        make_method("dgl cpc", strided_backbone(), first_trainable_block=1)
    make_method("dgl cpc", strided_backbone(), first_trainable_block=2)  # there is no such block to train


def test_it_learns_what_can_be_predicted() -> None:
    """Columns of one colour each: the right row is like the one above, others are not."""
    method = make_method("dgl cpc", **ALONE)
    colour_BC1W = torch.randn(8, 3, 1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    batch = Batch(colour_BC1W.expand(8, 3, 8, 8).contiguous(), torch.arange(8) % 5)
    optimizer = torch.optim.Adam(method.param_groups(), lr=0.01)
    losses = []
    for _ in range(60):
        losses.append(method.fill_grads(batch).losses[0].item())
        optimizer.step()
        optimizer.zero_grad()
    assert losses[0] > 2.7 and losses[-1] < 2  # chance is 2.833
