"""`load_data` on the digits that come with the code: split, shapes, and what --normalization stands for."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
import torch

import datamodules
from consts import DATASETS
from datamodules import digits, load_data, measure
from datamodules.base import ImageSet, Source
from schemas import DataArgs


@pytest.fixture(scope="module")
def whole() -> Source:
    return digits.read()


def test_digits_are_grey_32x32_images_of_ten_classes(whole: Source) -> None:
    assert whole.train.images_PHWC.shape == (1437, 32, 32, 1)
    assert whole.test.images_PHWC.shape == (360, 32, 32, 1)
    assert whole.train.images_PHWC.dtype == torch.uint8 and whole.train.labels_P.dtype == torch.int64
    assert whole.test.labels_P.bincount().tolist() == [36] * 10
    assert whole.train.labels_P.bincount().tolist() == [142, 146, 141, 147, 145, 146, 145, 143, 138, 144]
    assert (int(whole.train.images_PHWC.min()), int(whole.train.images_PHWC.max())) == (0, 255)


def test_digits_have_the_same_bits_everywhere(whole: Source) -> None:
    """Recomputed in whole numbers: the weights of a growth by 4 are eighths, so a pixel is a sum over 64ths."""
    with np.load(digits._FILE) as archive:
        levels, labels = archive["images_P88"].astype(np.int64), archive["labels_P"]
    eighths = np.zeros((32, 8), np.int64)
    for target in range(32):
        source = min(max(2 * target - 3, 0), 56)  # in eighths of a pixel
        first, rest = divmod(source, 8)
        eighths[target, first] += 8 - rest
        eighths[target, min(first + 1, 7)] += rest
    exact = np.einsum("ia,jb,pab->pij", eighths, eighths, levels) * 255  # over 64 * 16
    expected = np.rint(exact / 1024).astype(np.uint8)
    got = [*zip(*whole.train, strict=True), *zip(*whole.test, strict=True)]
    pairs = sorted((bytes(image[..., 0].numpy()), int(label)) for image, label in got)
    assert pairs == sorted((bytes(image), int(label)) for image, label in zip(expected, labels, strict=True))


def test_the_splits_share_no_image_position(whole: Source) -> None:
    assert whole.train.num_images + whole.test.num_images == 1797
    again = digits.read()
    assert torch.equal(again.train.images_PHWC, whole.train.images_PHWC)
    assert torch.equal(again.test.labels_P, whole.test.labels_P)


def test_sizes_reach_the_splits() -> None:
    splits = load_data(DataArgs(dataset="digits", train_size=100, val_size=50))
    assert splits.train.labels_P.bincount().tolist() == [10] * 10
    assert splits.val.labels_P.bincount().tolist() == [5] * 10
    assert splits.test.num_images == 360
    assert load_data(DataArgs(dataset="digits")).val is None


def test_the_description_fits_the_images() -> None:
    spec = load_data(DataArgs(dataset="digits")).spec
    assert (spec.name, spec.num_channels, spec.height, spec.width) == ("digits", 1, 32, 32)
    assert spec.class_names == tuple("0123456789") and spec.num_classes == 10
    assert (spec.mean, spec.std) == ((0.5,), (0.5,))


def test_no_normalization_is_zero_and_one() -> None:
    spec = load_data(DataArgs(dataset="digits", normalization="none")).spec
    assert (spec.mean, spec.std) == ((0.0,), (1.0,))


def test_unit_gaussian_is_measured_on_the_training_images_alone() -> None:
    splits = load_data(DataArgs(dataset="digits", normalization="unit_gaussian", train_size=200, val_size=300))
    pixels = splits.train.images_PHWC.double() / 255
    assert splits.spec.mean == pytest.approx((float(pixels.mean()),), abs=1e-12)
    assert splits.spec.std == pytest.approx((float(pixels.std(correction=0)),), abs=1e-12)


def test_unit_gaussian_takes_known_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    images = ImageSet(torch.zeros(4, 2, 2, 3, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    monkeypatch.setattr(datamodules, "_read", lambda *_: Source(images, images, ("a",)))
    spec = load_data(DataArgs(dataset="cifar10", normalization="unit_gaussian")).spec
    assert (spec.mean, spec.std) == (DATASETS["cifar10"].mean, DATASETS["cifar10"].std)


def test_measured_statistics_are_per_channel_and_never_zero() -> None:
    pixels = torch.zeros(2, 1, 1, 3, dtype=torch.uint8)
    pixels[1, 0, 0, 0], pixels[:, 0, 0, 1] = 255, 51
    mean, std = measure(ImageSet(pixels, torch.zeros(2, dtype=torch.int64)))
    assert mean == pytest.approx((0.5, 0.2, 0.0))
    assert std == pytest.approx((0.5, 1 / 255, 1 / 255))


def test_digits_need_neither_torchvision_nor_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision alone takes seconds to import."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "datamodules"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("torchvision", "PIL", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)  # an import of it now fails
    assert importlib.import_module("datamodules").load_data(DataArgs(dataset="digits")).test.num_images == 360
