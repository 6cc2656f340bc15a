"""Digits: 1,797 grey hand-written digits that come with the code, for runs without any files (see ``digits.md``)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from datamodules.base import ImageSet, Source
from datamodules.split import partition

_FILE = Path(__file__).with_name("digits.npz")
_SIZE = 32  # pixels; what the networks with five pools need
_MAX_LEVEL = 16
_TEST_SIZE = 360  # a fifth; the writers of both parts are the same people
_CLASS_NAMES = tuple("0123456789")


def read() -> Source:
    """The digits as 32x32 grey images: 1,437 for training and 360 (36 of every class) for the test, always the same."""
    with np.load(_FILE, allow_pickle=False) as archive:
        levels_P88, labels_P = torch.from_numpy(archive["images_P88"]), torch.from_numpy(archive["labels_P"]).long()
    # Growing by 4 weighs the levels with multiples of 1/64, so everything up to the rounding is exact in float32 and
    # the pixels are the same on every machine.
    grown_P1HW = functional.interpolate(levels_P88[:, None].float(), size=(_SIZE, _SIZE), mode="bilinear")
    pixels_PHWC = (grown_P1HW * (255 / _MAX_LEVEL)).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    digits = ImageSet(pixels_PHWC, labels_P)
    sizes = (_TEST_SIZE, digits.num_images - _TEST_SIZE)
    test_P, train_P = partition(labels_P, len(_CLASS_NAMES), sizes)
    return Source(digits.select(train_P), digits.select(test_P), _CLASS_NAMES)
