"""Subsets are balanced, disjoint, the same in every run, and refused where the data set is too small."""

from __future__ import annotations

import pytest
import torch

from datamodules import load_data
from datamodules.base import ImageSet
from datamodules.split import balanced_counts, hold_out, partition, shuffle_labels
from schemas import DataArgs
from utils import UsageError

LABELS = torch.arange(300) % 3


def numbered(labels: torch.Tensor = LABELS) -> ImageSet:
    """Images whose one pixel tells their position (two bytes)."""
    position = torch.arange(len(labels))
    pixels = torch.stack((position // 256, position % 256), 1).to(torch.uint8)
    return ImageSet(pixels[:, None, :, None], labels)


def positions(images: ImageSet) -> list[int]:
    high, low = images.images_PHWC[:, 0, :, 0].long().unbind(1)
    return (high * 256 + low).tolist()


def sized(train_size: int | None, val_size: int) -> DataArgs:
    return DataArgs(dataset="digits", train_size=train_size, val_size=val_size)


@pytest.mark.parametrize(
    ("available", "size", "expected"),
    [
        ([5, 5, 5], 6, [2, 2, 2]),
        ([5, 5, 5], 15, [5, 5, 5]),
        ([5, 5, 5], 0, [0, 0, 0]),
        ([1, 9, 9], 11, [1, 5, 5]),
        ([9, 0, 9], 4, [2, 0, 2]),
        ([7], 3, [3]),
    ],
)
def test_counts_are_as_equal_as_the_classes_allow(available: list[int], size: int, expected: list[int]) -> None:
    assert balanced_counts(available, size) == expected


@pytest.mark.parametrize("size", range(31))
def test_counts_sum_to_the_size_and_differ_by_one(size: int) -> None:
    available = [10, 10, 10]
    taken = balanced_counts(available, size)
    assert sum(taken) == size and max(taken) - min(taken) <= 1 and max(taken) <= 10


def test_parts_are_balanced_disjoint_and_in_order() -> None:
    first, second = partition(LABELS, 3, (30, 61))
    assert LABELS[first].bincount().tolist() == [10, 10, 10]
    assert sorted(LABELS[second].bincount().tolist()) == [20, 20, 21]
    assert not set(first.tolist()) & set(second.tolist())
    assert first.tolist() == sorted(first.tolist())


def test_the_choice_is_not_the_first_images_and_not_the_global_generators() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = partition(LABELS, 3, (30,))[0]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, partition(LABELS, 3, (30,))[0])
    assert first.max() > 100


def test_a_larger_subset_keeps_the_smaller_one() -> None:
    small, large = (set(partition(LABELS, 3, (size,))[0].tolist()) for size in (30, 60))
    assert small < large


def test_validation_images_do_not_depend_on_train_size() -> None:
    kept = [hold_out(numbered(), 3, sized(train_size, 60)) for train_size in (None, 90, 240)]
    held = [positions(val) for _, val in kept if val is not None]
    assert held[0] == held[1] == held[2] and len(held[0]) == 60
    for (train, _), size in zip(kept, (240, 90, 240), strict=True):
        assert train.num_images == size
        assert not set(positions(train)) & set(held[0])
        assert set(train.labels_P.bincount().tolist()) == {size // 3}


def test_labels_stay_with_their_images() -> None:
    train, val = hold_out(numbered(), 3, sized(120, 30))
    for images in (train, val):
        assert images.labels_P.tolist() == [position % 3 for position in positions(images)]


def test_nothing_asked_is_nothing_changed() -> None:
    images = numbered()
    train, val = hold_out(images, 3, sized(None, 0))
    assert train is images and val is None


@pytest.mark.parametrize(
    ("train_size", "val_size", "flag", "reason"),
    [
        (301, 0, "--train_size 301", ", so it must be at most 300"),
        (291, 10, "--train_size 291", ", of which --val_size holds out 10, so it must be at most 290"),
        (None, 299, "--val_size 299", " and two must be left, so it must be at most 298"),
        (5, 4000, "--val_size 4000", " and two must be left, so it must be at most 298"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(train_size: int | None, val_size: int, flag: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        hold_out(numbered(), 3, sized(train_size, val_size))
    assert str(caught.value) == f"{flag}: digits has 300 training images{reason}"


def test_the_largest_sizes_that_fit_are_taken() -> None:
    assert hold_out(numbered(), 3, sized(290, 10))[0].num_images == 290
    train, val = hold_out(numbered(), 3, sized(None, 298))
    assert (train.num_images, val.num_images) == (2, 298)


def test_shuffled_labels_move_within_the_share_and_keep_the_sizes_of_the_classes() -> None:
    images = numbered()
    few, many, everything = (shuffle_labels(images, share) for share in (0.2, 0.6, 1))
    moved = [set((each.labels_P != images.labels_P).nonzero().flatten().tolist()) for each in (few, many, everything)]
    for each, share, places in zip((few, many, everything), (0.2, 0.6, 1), moved, strict=True):
        assert torch.equal(each.images_PHWC, images.images_PHWC)
        assert torch.equal(each.labels_P.bincount(), images.labels_P.bincount())
        assert 0.4 * share < len(places) / images.num_images <= share
    assert torch.equal(shuffle_labels(images, 0.6).labels_P, many.labels_P)
    assert not torch.equal(few.labels_P, images.labels_P)


def test_a_share_of_less_than_two_images_is_refused() -> None:
    with pytest.raises(UsageError, match="of 300 training images that is 0, and 2 are needed"):
        shuffle_labels(numbered(), 0.001)


def test_only_the_training_labels_are_shuffled() -> None:
    plain, shuffled = (
        load_data(DataArgs(dataset="digits", train_size=300, val_size=90, random_labels=share)) for share in (0, 1)
    )
    assert plain.val is not None and shuffled.val is not None
    assert torch.equal(plain.val.labels_P, shuffled.val.labels_P)
    assert torch.equal(plain.test.labels_P, shuffled.test.labels_P)
    assert torch.equal(plain.train.images_PHWC, shuffled.train.images_PHWC)
    assert 0.8 < float((plain.train.labels_P != shuffled.train.labels_P).double().mean()) < 0.98
