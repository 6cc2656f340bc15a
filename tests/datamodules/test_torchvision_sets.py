"""CIFAR and SVHN in torchvision's files, and what is said where any set is missing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision.datasets as torchvision_datasets

from datamodules import torchvision_sets
from tests.datamodules.conftest import fault, load


def test_cifar_is_read_as_torchvision_reads_it(cifar: SimpleNamespace) -> None:
    splits = load(cifar.dataset, cifar.root)
    for images, is_train in ((splits.train, True), (splits.test, False)):
        reference = cifar.cls(cifar.root, train=is_train)
        assert torch.equal(images.images_PHWC, torch.from_numpy(np.ascontiguousarray(reference.data)))
        assert images.images_PHWC.is_contiguous() and images.labels_P.tolist() == reference.targets
    assert splits.spec.class_names == ("ant", "bee", "cow") and splits.spec.num_channels == 3


def test_a_damaged_batch_of_cifar_is_noticed(cifar: SimpleNamespace) -> None:
    path = cifar.folder / cifar.cls.test_list[0][0]
    path.write_bytes(path.read_bytes() + b"0")
    assert f"{cifar.folder.name} is incomplete or damaged" in fault(cifar.dataset, cifar.root)


def test_svhn_comes_out_with_channels_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        """What torchvision's SVHN looks like once it is read: NCHW, labels as an array."""

        def __init__(self, root: Path, split: str) -> None:
            count = {"train": 30, "test": 10}[split]
            self.data = np.arange(count * 3 * 32 * 32, dtype=np.int64).astype(np.uint8).reshape(count, 3, 32, 32)
            self.labels = np.arange(count) % 10

    for name in ("train_32x32.mat", "test_32x32.mat"):
        (tmp_path / name).touch()
    monkeypatch.setattr(torchvision_datasets, "SVHN", Fake)
    splits = load("svhn", tmp_path)
    assert splits.train.images_PHWC.shape == (30, 32, 32, 3) and splits.test.num_images == 10
    expected = torch.from_numpy(Fake(tmp_path, "train").data).permute(0, 2, 3, 1)
    assert torch.equal(splits.train.images_PHWC, expected) and splits.train.images_PHWC.is_contiguous()
    assert splits.spec.class_names == tuple("0123456789")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def needs_scipy(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'scipy'", name="scipy")

    for name in ("train_32x32.mat", "test_32x32.mat"):
        (tmp_path / name).touch()
    monkeypatch.setattr(torchvision_datasets, "SVHN", needs_scipy)
    assert fault("svhn", tmp_path) == "data set svhn needs the package scipy: pip install scipy"


@pytest.mark.parametrize("dataset", list(torchvision_sets._SETS))
def test_missing_data_are_named_with_the_three_ways_on(tmp_path: Path, dataset: str) -> None:
    message = fault(dataset, tmp_path)
    assert message.startswith(f"data set {dataset} not found: no {torchvision_sets._SETS[dataset].files[0]}")
    assert f"(looked in {tmp_path})" in message
    for way in ("--dataset digits", "--download", "put the files there", "--dataset folder --data_dir TREE"):
        assert way in message
    assert list(tmp_path.iterdir()) == []  # nothing was written
