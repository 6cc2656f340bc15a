"""Data sets as uint8 images: `load_data` reads one, `datamodules.feed.Feed` makes batches of it."""

from __future__ import annotations

import sys

import torch

from consts import DATASETS
from datamodules.base import Announce, DataSpec, ImageSet, Source, Splits
from datamodules.split import hold_out, shuffle_labels
from schemas import DataArgs

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def load_data(args: DataArgs, *, announce: Announce = _to_stderr, progress: bool = True) -> Splits:
    """Read a data set and choose its images.

    Args:
        args: which one, from where, and how much of it.
        announce: shows the user one line.
        progress: draw a progress bar where reading takes long and stderr is a terminal.

    Raises:
        UsageError: ``--train_size`` or ``--val_size`` is larger than the data set allows.
        MissingData: the data are not there.
        UserError: they are damaged or unreadable.
    """
    source = _read(args, announce, progress)
    train, val = hold_out(source.train, len(source.class_names), args)
    if args.random_labels > 0:
        train = shuffle_labels(train, args.random_labels)
    mean, std = _statistics(args, train)
    _, height, width, num_channels = train.images_PHWC.shape
    spec = DataSpec(args.dataset, num_channels, height, width, source.class_names, mean, std)
    return Splits(train, val, source.test, spec, source.facts())


def _read(args: DataArgs, announce: Announce, progress: bool) -> Source:
    """Every source is imported only when it is asked for: torchvision alone takes seconds."""
    if args.dataset == "digits":
        from datamodules import digits

        return digits.read()
    if args.generated is not None:
        from datamodules import theory

        return theory.generate(args, args.generated)
    if args.dataset == "folder":
        from datamodules import folder

        return folder.read(args, announce, progress)
    if args.dataset == "arrays":
        from datamodules import arrays

        return arrays.read(args, announce)
    from datamodules import torchvision_sets

    return torchvision_sets.read(args, announce)


def _statistics(args: DataArgs, train: ImageSet) -> Statistics:
    """Mean and standard deviation per channel that ``--normalization`` stands for."""
    num_channels = train.images_PHWC.shape[-1]
    if args.normalization == "plus_minus_one":
        return (0.5,) * num_channels, (0.5,) * num_channels
    if args.normalization == "none":
        return (0.0,) * num_channels, (1.0,) * num_channels
    facts = DATASETS[args.dataset]
    return (facts.mean, facts.std) if facts.mean else measure(train)


def measure(images: ImageSet) -> Statistics:
    """Mean and standard deviation of every channel, of pixels scaled to [0, 1].

    Taken from the histogram of the 256 levels: whole numbers are summed, so the result has the same bits whatever the
    number of threads. A constant channel gets one level as its deviation, which keeps the division finite.
    """
    counts_CL = images.levels()
    num_levels = counts_CL.shape[1]
    level = torch.arange(num_levels, dtype=torch.float64) / (num_levels - 1)
    means, stds = [], []
    for counts_L in counts_CL:
        share = counts_L.double() / int(counts_L.sum())
        mean = float((share * level).sum())
        means.append(mean)
        stds.append(max(float((share * (level - mean) ** 2).sum().sqrt()), 1 / (num_levels - 1)))
    return tuple(means), tuple(stds)
