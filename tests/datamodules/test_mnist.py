"""MNIST and Fashion-MNIST, whose files torchvision does not check."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision.datasets as torchvision_datasets

from datamodules import torchvision_sets
from tests.datamodules.conftest import fault, load, md5

COUNTS = {"train": 40, "t10k": 20}


@pytest.fixture(params=["mnist", "fashion_mnist"])
def mnist(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """40 training and 20 test images in the four files of MNIST, each beside its .gz."""
    cls = {"mnist": torchvision_datasets.MNIST, "fashion_mnist": torchvision_datasets.FashionMNIST}[request.param]
    raw = tmp_path / cls.__name__ / "raw"
    raw.mkdir(parents=True)
    generator, arrays, resources = np.random.default_rng(0), {}, []
    for prefix, count in COUNTS.items():
        arrays[prefix] = (
            generator.integers(0, 256, (count, 28, 28), dtype=np.uint8),
            np.arange(count, dtype=np.uint8) % 10,
        )
        for kind, array in zip(("images-idx3", "labels-idx1"), arrays[prefix], strict=True):
            path = raw / f"{prefix}-{kind}-ubyte"
            path.write_bytes(struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes())
            archive = path.with_name(f"{path.name}.gz")
            archive.write_bytes(gzip.compress(path.read_bytes()))
            resources.append((archive.name, md5(archive)))
    monkeypatch.setattr(torchvision_sets, "_IDX_COUNTS", COUNTS)
    monkeypatch.setattr(cls, "resources", resources)
    return SimpleNamespace(dataset=request.param, root=tmp_path, raw=raw, arrays=arrays, cls=cls)


def test_mnist_is_read_as_torchvision_reads_it(mnist: SimpleNamespace) -> None:
    splits = load(mnist.dataset, mnist.root)
    for images, is_train in ((splits.train, True), (splits.test, False)):
        reference = mnist.cls(mnist.root, train=is_train)
        assert torch.equal(images.images_PHWC[..., 0], reference.data)
        assert torch.equal(images.labels_P, reference.targets)
    assert splits.train.images_PHWC.shape == (40, 28, 28, 1) and splits.train.labels_P.dtype == torch.int64
    assert (splits.spec.num_channels, splits.spec.height) == (1, 28)
    assert splits.spec.class_names == tuple(mnist.cls.classes)


def test_mnist_does_not_need_the_archives(mnist: SimpleNamespace) -> None:
    for archive in mnist.raw.glob("*.gz"):
        archive.unlink()
    assert torch.equal(
        load(mnist.dataset, mnist.root).train.images_PHWC[..., 0], torch.from_numpy(mnist.arrays["train"][0])
    )


@pytest.mark.parametrize("keep_archive", [True, False])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_truncated_file_is_named(mnist: SimpleNamespace, name: str, keep_archive: bool) -> None:
    path = mnist.raw / name
    path.write_bytes(path.read_bytes()[:-7])
    if not keep_archive:
        path.with_name(f"{name}.gz").unlink()
    message = fault(mnist.dataset, mnist.root)
    assert message.startswith(f"{path} is damaged: its {path.stat().st_size} bytes are not an idx file of")
    assert "delete it" in message


def test_a_wrong_header_of_the_right_length_is_noticed(mnist: SimpleNamespace) -> None:
    path = mnist.raw / "t10k-images-idx3-ubyte"
    path.with_name(f"{path.name}.gz").unlink()
    content = path.read_bytes()
    path.write_bytes(struct.pack(">4I", 0x803, 28, 20, 28) + content[16:])
    assert str(path) in fault(mnist.dataset, mnist.root)


def test_changed_bytes_are_noticed_against_the_archive(mnist: SimpleNamespace) -> None:
    path = mnist.raw / "train-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    assert fault(mnist.dataset, mnist.root).startswith(
        f"{path} is damaged: it is not what {path.name}.gz beside it holds"
    )


def test_a_damaged_archive_vouches_for_nothing(mnist: SimpleNamespace) -> None:
    archive = mnist.raw / "train-labels-idx1-ubyte.gz"
    archive.write_bytes(archive.read_bytes()[:-9] + b"123456789")
    assert fault(mnist.dataset, mnist.root).startswith(f"{archive} is damaged: its md5 is not")


def test_labels_outside_the_classes_are_noticed(mnist: SimpleNamespace) -> None:
    path = mnist.raw / "t10k-labels-idx1-ubyte"
    path.with_name(f"{path.name}.gz").unlink()
    path.write_bytes(path.read_bytes()[:-1] + b"\x0a")
    assert "label 10 in a set of 10 classes" in fault(mnist.dataset, mnist.root)


def test_one_missing_file_is_named(mnist: SimpleNamespace) -> None:
    path = mnist.raw / "t10k-labels-idx1-ubyte"
    path.unlink()
    assert f"no {path} (looked in {mnist.root})" in fault(mnist.dataset, mnist.root)
