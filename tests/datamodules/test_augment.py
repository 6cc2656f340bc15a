"""The random numbers of an epoch: pure, independent of one another, and with the frequencies they should have."""

from __future__ import annotations

import pytest
import torch

from consts import CROP_PADDING
from datamodules.augment import Draws, draw
from datamodules.feed import epoch_order
from schemas import DataArgs

COUNT, SIZE = 20_000, 32


def drawn(seed: int = 0, epoch: int = 0, size: int = SIZE, **settings: bool) -> Draws:
    own = {"random_crop": False, "random_horizontal_flip": False, **settings}
    return draw(DataArgs(**own), seed, epoch, COUNT, size, size)


def test_the_order_is_a_permutation_made_of_seed_and_epoch_alone() -> None:
    order = epoch_order(3, 5, 1000)
    assert torch.equal(order.sort().values, torch.arange(1000))
    assert torch.equal(order, epoch_order(3, 5, 1000))
    others = [epoch_order(seed, epoch, 1000) for seed, epoch in [(3, 6), (4, 5), (5, 3), (1, 12), (11, 2)]]
    for first in range(len(others)):
        assert not torch.equal(order, others[first])
        for second in range(first):
            assert not torch.equal(others[first], others[second])


def test_exchanging_seed_and_epoch_changes_the_order() -> None:
    assert not torch.equal(epoch_order(0, 1, 100), epoch_order(1, 0, 100))


def test_an_augmentation_does_not_change_the_others() -> None:
    alone = drawn(random_crop=True)
    together = drawn(random_crop=True, random_horizontal_flip=True, random_erasing=True)
    assert torch.equal(alone.corner_P2, together.corner_P2)
    assert torch.equal(together.flip_P, drawn(random_horizontal_flip=True).flip_P)
    assert torch.equal(together.erase_P4, drawn(random_erasing=True).erase_P4)


def test_different_augmentations_draw_different_numbers() -> None:
    both = drawn(random_horizontal_flip=True, random_resized_crop=True)
    agree = (both.flip_P == (both.side_P < both.side_P.median())).float().mean()
    assert agree == pytest.approx(0.5, abs=0.05)


def test_nothing_is_drawn_that_was_not_asked_for() -> None:
    none = drawn()
    assert none.side_P is None and none.erase_P4 is None
    assert not none.corner_P2.any() and not none.flip_P.any()


def test_every_crop_is_as_likely_as_another() -> None:
    cells = 2 * CROP_PADDING + 1
    corner_P2 = drawn(random_crop=True).corner_P2
    counts = torch.bincount(corner_P2[:, 0] * cells + corner_P2[:, 1], minlength=cells**2)
    assert len(counts) == cells**2
    expected = COUNT / cells**2
    assert ((counts - expected) ** 2 / expected).sum() < 125  # chi-squared, 80 degrees of freedom: 99.9 % lie below


def test_every_other_image_is_mirrored() -> None:
    assert drawn(random_horizontal_flip=True).flip_P.float().mean() == pytest.approx(0.5, abs=0.015)


def test_squares_cover_75_to_100_percent_and_stay_inside() -> None:
    draws = drawn(random_resized_crop=True)
    assert (int(draws.side_P.min()), int(draws.side_P.max())) == (28, 32)  # sqrt(0.75) * 32 = 27.7
    assert int(draws.corner_P2.min()) == 0
    assert bool((draws.corner_P2 + draws.side_P[:, None] <= SIZE).all())
    small_P = draws.side_P == 28
    assert set(draws.corner_P2[small_P].flatten().tolist()) == set(range(5))
    assert (draws.side_P.float() ** 2).mean() / SIZE**2 == pytest.approx(0.875, abs=0.01)


def test_squares_of_an_oblong_image_end_at_its_shorter_edge() -> None:
    draws = draw(DataArgs(random_resized_crop=True), 0, 0, COUNT, 20, 30)
    assert int(draws.side_P.max()) == 20
    assert bool((draws.corner_P2 + draws.side_P[:, None] <= torch.tensor([20, 30])).all())


def test_rectangles_have_the_published_probability_area_and_ratio() -> None:
    rectangles = drawn(size=256, random_erasing=True).erase_P4.double()  # large, so that rounding matters little
    erased = rectangles[rectangles[:, 2] > 0]
    assert len(erased) / COUNT == pytest.approx(0.5, abs=0.015)
    top, left, height, width = erased.unbind(1)
    area, ratio = height * width / 256**2, height / width
    assert 0.0195 < area.min() < 0.03 and 0.3 < area.max() < 0.335
    assert 0.29 < ratio.min() < 0.32 and 3.1 < ratio.max() < 3.4
    assert area.mean() == pytest.approx(0.175, abs=0.005)
    assert ratio.log().mean() == pytest.approx(0, abs=0.03)
    assert bool((top + height <= 256).all()) and bool((left + width <= 256).all())
    assert float(top.min()) == float(left.min()) == 0


def test_a_rectangle_that_does_not_fit_is_drawn_again() -> None:
    """At 4x4 pixels a third of the tries is as high or as wide as the image; ten tries find one that is not."""
    rectangles = drawn(size=4, random_erasing=True).erase_P4
    assert int(rectangles[:, 2:].max()) == 3
    assert (rectangles[:, 2:].sum(1) > 0).float().mean() == pytest.approx(0.5, abs=0.02)


def test_the_second_view_is_drawn_independently_of_the_first() -> None:
    settings = DataArgs(random_crop=True, random_horizontal_flip=True, random_erasing=True)
    one, two = (draw(settings, 0, 0, COUNT, SIZE, SIZE, view) for view in ("", "second "))
    agree = (one.corner_P2 == two.corner_P2).float().mean()
    assert agree == pytest.approx(1 / (2 * CROP_PADDING + 1), abs=0.01)
    assert (one.flip_P == two.flip_P).float().mean() == pytest.approx(0.5, abs=0.02)
    assert not torch.equal(one.erase_P4, two.erase_P4)
