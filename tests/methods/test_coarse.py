"""Super-classes for early blocks: probabilities add up, the last block is that of plain DGL."""

from __future__ import annotations

import math

import pytest
import torch

import methods
from consts import SUPER_CLASSES
from datamodules.base import Batch, DataSpec
from datamodules.super_classes import CoarseLabels
from methods._base import Method
from networks import build_backbone
from objectives.classification import merged_logits
from objectives.similarity import similarity_matching
from schemas import ModelArgs, build_args
from tests.conftest import gradients, make_spec
from utils import UsageError

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SPEC = DataSpec("cifar10", 3, 8, 8, NAMES, (0.5,) * 3, (0.5,) * 3)
VEHICLES = [0, 1, 8, 9]


def make(name: str, **settings: object) -> Method:
    torch.manual_seed(0)
    args = build_args({"method": name, "aux_mlp_hidden_dim": 9, **settings})
    return methods.load(name)(args.method, build_backbone(ModelArgs(model="VGGs"), SPEC), SPEC).double()


def make_batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(torch.randn(10, 3, 8, 8, generator=generator, dtype=torch.float64), torch.arange(10))


def test_every_level_has_every_class_once_and_refines_the_one_before() -> None:
    for groups in SUPER_CLASSES:
        assert sorted(name for group in groups for name in group) == sorted(NAMES)
    for fine in SUPER_CLASSES[1]:
        assert any(set(fine) <= set(coarse) for coarse in SUPER_CLASSES[0])


def test_probability_of_a_group_is_the_sum_over_its_members() -> None:
    logits = torch.randn(4, 5, dtype=torch.float64)
    member = torch.tensor([[True, False, True, False, False], [False, True, False, True, True]])
    merged = merged_logits(logits, member).softmax(1)
    whole = logits.softmax(1)
    torch.testing.assert_close(merged[:, 0], whole[:, 0] + whole[:, 2])
    torch.testing.assert_close(merged.sum(1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(merged_logits(torch.zeros(1, 5), member)[0, 1], torch.tensor(math.log(3)))


@pytest.mark.parametrize(
    ("num_blocks", "expected"), [(1, [10]), (2, [2, 10]), (3, [2, 5, 10]), (8, [2, 2, 2, 5, 5, 5, 10, 10])]
)
def test_blocks_share_the_levels(num_blocks: int, expected: list[int]) -> None:
    labels = CoarseLabels(SPEC, num_blocks)
    assert [labels.labels(index, torch.arange(10))[1] for index in range(num_blocks)] == expected


def test_labels_are_those_of_the_groups() -> None:
    assert CoarseLabels(SPEC, 3).labels(0, torch.arange(10))[0].tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 0, 0]


def test_the_first_block_learns_vehicle_or_animal() -> None:
    method, batch = make("dgl", coarse_labels_first=True), make_batch()
    output = method.fill_grads(batch)
    probabilities = output.logits[0].softmax(1)
    naive = [
        -math.log(sum(probabilities[b, c] for c in range(10) if (c in VEHICLES) == (b in VEHICLES))) for b in range(10)
    ]
    assert output.losses[0].item() == pytest.approx(sum(naive) / 10, rel=1e-12)


@pytest.mark.parametrize("name", ["dgl", "predsim"])
def test_the_last_block_is_that_of_the_method_alone(name: str) -> None:
    plain, coarse = make(name), make(name, coarse_labels_first=True)
    for method in (plain, coarse):
        method.fill_grads(make_batch())
    changed = [key for key, gradient in gradients(plain).items() if not torch.equal(gradient, gradients(coarse)[key])]
    assert changed
    assert not [key for key in changed if "blocks.2" in key or "classifier" in key]


def test_predsim_matches_the_similarity_of_super_classes() -> None:
    method, batch = make("predsim", coarse_labels_first=True, sim_loss_weight=1.0), make_batch()
    loss = method.fill_grads(batch).losses[0]
    hidden = method.run_block(0, batch.x_BCHW)
    compared = method.similarity_heads["block_00"](hidden.features_BCHW)
    groups = torch.tensor([0 if c in VEHICLES else 1 for c in range(10)])
    torch.testing.assert_close(loss, similarity_matching(compared, groups, 2))


def test_other_classes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"CIFAR-10 .* only, and the data set test has 5 classes"):
        CoarseLabels(make_spec(), 3)
