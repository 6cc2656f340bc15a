"""Class-balanced subsets that are the same in every run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from datamodules.base import ImageSet
from schemas import DataArgs
from utils import UsageError

# Not the run's seed: runs that differ in their seed must learn from and be judged on the same images, or the spread
# between seeds would mix the luck of the split with that of the initialisation.
_SPLIT_SEED = 20210


def balanced_counts(available: Sequence[int], size: int) -> list[int]:
    """How many to take of every class: ``size`` in all, as equal as ``available`` allows.

    What does not divide evenly, and what small classes lack, comes from the largest classes. ``size`` must not exceed
    the sum of ``available``.
    """
    taken, left = [0] * len(available), size
    ascending = sorted(range(len(available)), key=lambda label: available[label])
    for position, label in enumerate(ascending):
        taken[label] = min(available[label], left // (len(ascending) - position))
        left -= taken[label]
    return taken


def partition(labels_P: Tensor, num_classes: int, sizes: Sequence[int]) -> list[Tensor]:
    """Disjoint class-balanced sets of positions, one for each of ``sizes``.

    A set depends on the labels, on the sizes before its own and on its own; a larger size keeps what a smaller one
    chose where the counts per class allow. ``sizes`` must not sum to more than there are labels.

    Returns:
        int64 positions, ascending, so that a subset has the order of its source.
    """
    shuffled_P = torch.randperm(len(labels_P), generator=torch.Generator().manual_seed(_SPLIT_SEED))
    by_class_P = shuffled_P[labels_P[shuffled_P].argsort(stable=True)]
    pools = list(by_class_P.split(torch.bincount(labels_P, minlength=num_classes).tolist()))
    parts = []
    for size in sizes:
        counts = balanced_counts([len(pool) for pool in pools], size)
        parts.append(torch.cat([pool[:count] for pool, count in zip(pools, counts, strict=True)]).sort().values)
        pools = [pool[count:] for pool, count in zip(pools, counts, strict=True)]
    return parts


def at_most(images: ImageSet, num_classes: int, count: int) -> ImageSet:
    """``count`` of the images, class-balanced and in their order, or all where there are fewer."""
    [chosen_P] = partition(images.labels_P, num_classes, [min(count, images.num_images)])
    return images.select(chosen_P)


def hold_out(images: ImageSet, num_classes: int, args: DataArgs) -> tuple[ImageSet, ImageSet | None]:
    """Apply ``--val_size``, then ``--train_size`` to what is left.

    Returns:
        Training images, and the held-out ones or None.

    Raises:
        UsageError: a size is larger than the data set allows.
    """
    count, has = images.num_images, f"{args.dataset} has {images.num_images} training images"
    if args.val_size > count - 2:  # the smallest batch there is
        raise UsageError(f"--val_size {args.val_size}: {has} and two must be left, so it must be at most {count - 2}")
    rest = count - args.val_size
    if args.train_size is not None and args.train_size > rest:
        held = f", of which --val_size holds out {args.val_size}" if args.val_size else ""
        raise UsageError(f"--train_size {args.train_size}: {has}{held}, so it must be at most {rest}")
    train_size = rest if args.train_size is None else args.train_size
    if train_size == count:
        return images, None
    val_P, train_P = partition(images.labels_P, num_classes, (args.val_size, train_size))
    return images.select(train_P), images.select(val_P) if args.val_size else None


def shuffle_labels(images: ImageSet, share: float) -> ImageSet:
    """Shuffle the labels of a share in (0, 1] of the images among themselves, the same ones in every run.

    The classes keep their sizes (Zhang et al., arXiv 1611.03530, draw the labels anew instead). An image may get the
    label of another one of its own class. A larger share contains the images of a smaller one.

    Raises:
        UsageError: the share is less than two images.
    """
    count = round(share * images.num_images)
    if count < 2:
        raise UsageError(
            f"--random_labels {share:g}: of {images.num_images} training images that is {count}, and 2 are needed; "
            f"give at least {2 / images.num_images:.2g}"
        )
    generator = torch.Generator().manual_seed(_SPLIT_SEED)
    chosen_P = torch.randperm(images.num_images, generator=generator)[:count]
    labels_P = images.labels_P.clone()
    labels_P[chosen_P] = labels_P[chosen_P[torch.randperm(count, generator=generator)]]
    return images._replace(labels_P=labels_P)
