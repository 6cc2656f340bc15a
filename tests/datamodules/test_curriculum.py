"""Which images a curriculum lets in, and when."""

from __future__ import annotations

import pytest
import torch

from datamodules.curriculum import Curriculum
from datamodules.feed import Feed, epoch_order
from schemas import DataArgs
from tests.datamodules.test_feed import CPU, make_images, make_spec

RANKING_P = torch.randperm(37, generator=torch.Generator().manual_seed(5))


def test_the_pace_is_linear_up_to_all() -> None:
    curriculum = Curriculum(RANKING_P, start=0.2, num_epochs=4)
    assert [curriculum.share(epoch) for epoch in range(7)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1])
    assert Curriculum(RANKING_P, 0.5, 2.5).share(1) == pytest.approx(0.7)
    assert Curriculum(RANKING_P, 0.5, 0.1).share(1) == 1


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_an_epoch_draws_the_first_of_the_ranking_equally_often(epoch: int) -> None:
    curriculum = Curriculum(RANKING_P, start=0.2, num_epochs=4)
    order_P = curriculum.order(3, epoch)
    count = [7, 15, 22][epoch]  # 7.4, 14.8 and 22.2 of 37
    assert len(order_P) == 37
    assert set(order_P.tolist()) == set(RANKING_P[:count].tolist())
    times = torch.bincount(order_P, minlength=37)[RANKING_P[:count]]
    assert times.max() - times.min() <= 1
    first, second = order_P[:count], order_P[count : 2 * count]
    assert len(set(first.tolist())) == count
    assert not torch.equal(first[: len(second)], second)  # shuffled again


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    curriculum = Curriculum(RANKING_P, start=0.5, num_epochs=100)
    assert torch.equal(curriculum.order(3, 1), Curriculum(RANKING_P, 0.5, 100).order(3, 1))
    assert not torch.equal(curriculum.order(3, 1), curriculum.order(4, 1))
    assert not torch.equal(curriculum.order(3, 0), curriculum.order(3, 1))


def test_once_all_are_let_in_it_is_the_order_of_a_run_without_it() -> None:
    curriculum = Curriculum(RANKING_P, start=0.2, num_epochs=4)
    assert torch.equal(curriculum.order(3, 4), epoch_order(3, 4, 37))


def test_at_least_one_image_is_let_in() -> None:
    assert set(Curriculum(RANKING_P, 1e-6, 4).order(0, 0).tolist()) == {int(RANKING_P[0])}


def test_a_feed_draws_what_the_curriculum_says() -> None:
    images, curriculum = make_images(), Curriculum(RANKING_P, start=0.2, num_epochs=4)
    feeds = [
        Feed(images, make_spec(images), 5, CPU, augment=DataArgs(random_crop=True), seed=3, curriculum=limit)
        for limit in (curriculum, None)
    ]
    assert feeds[0].num_steps == feeds[1].num_steps == 7
    for epoch in range(6):
        labels = torch.cat([feeds[0].batch(epoch, step).y_B for step in range(7)])  # they name the image
        assert torch.equal(labels, curriculum.order(3, epoch)[:35])
    one, other = (feed.batch(5, 2) for feed in feeds)
    assert torch.equal(one.x_BCHW, other.x_BCHW) and torch.equal(one.y_B, other.y_B)
