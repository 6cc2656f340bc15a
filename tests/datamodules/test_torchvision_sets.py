"""Sets in torchvision's files: tiny ones made here, with nothing fetched from anywhere."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import http.client
import pickle
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.datasets as torchvision_datasets

from datamodules import load_data, torchvision_sets
from datamodules.base import Splits
from schemas import DataArgs
from utils import UserError

COUNTS = {"train": 40, "t10k": 20}


def load(root: Path, dataset: str, lines: list[str] | None = None, **settings: object) -> Splits:
    announce = (lambda line: pytest.fail(line)) if lines is None else lines.append
    return load_data(DataArgs(dataset=dataset, data_dir=str(root), **settings), announce=announce)


def fault(root: Path, dataset: str, **settings: object) -> str:
    with pytest.raises(UserError) as caught:
        load(root, dataset, [], **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


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
    splits = load(mnist.root, mnist.dataset)
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
        load(mnist.root, mnist.dataset).train.images_PHWC[..., 0], torch.from_numpy(mnist.arrays["train"][0])
    )


@pytest.mark.parametrize("keep_archive", [True, False])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_truncated_file_is_named(mnist: SimpleNamespace, name: str, keep_archive: bool) -> None:
    path = mnist.raw / name
    path.write_bytes(path.read_bytes()[:-7])
    if not keep_archive:
        path.with_name(f"{name}.gz").unlink()
    message = fault(mnist.root, mnist.dataset)
    assert message.startswith(f"{path} is damaged: its {path.stat().st_size} bytes are not an idx file of")
    assert "delete it" in message


def test_a_wrong_header_of_the_right_length_is_noticed(mnist: SimpleNamespace) -> None:
    path = mnist.raw / "t10k-images-idx3-ubyte"
    path.with_name(f"{path.name}.gz").unlink()
    content = path.read_bytes()
    path.write_bytes(struct.pack(">4I", 0x803, 28, 20, 28) + content[16:])
    assert str(path) in fault(mnist.root, mnist.dataset)


def test_changed_bytes_are_noticed_against_the_archive(mnist: SimpleNamespace) -> None:
    path = mnist.raw / "train-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    assert fault(mnist.root, mnist.dataset).startswith(
        f"{path} is damaged: it is not what {path.name}.gz beside it holds"
    )


def test_a_damaged_archive_vouches_for_nothing(mnist: SimpleNamespace) -> None:
    archive = mnist.raw / "train-labels-idx1-ubyte.gz"
    archive.write_bytes(archive.read_bytes()[:-9] + b"123456789")
    assert fault(mnist.root, mnist.dataset).startswith(f"{archive} is damaged: its md5 is not")


def test_labels_outside_the_classes_are_noticed(mnist: SimpleNamespace) -> None:
    path = mnist.raw / "t10k-labels-idx1-ubyte"
    path.with_name(f"{path.name}.gz").unlink()
    path.write_bytes(path.read_bytes()[:-1] + b"\x0a")
    assert "label 10 in a set of 10 classes" in fault(mnist.root, mnist.dataset)


def test_one_missing_file_is_named(mnist: SimpleNamespace) -> None:
    path = mnist.raw / "t10k-labels-idx1-ubyte"
    path.unlink()
    assert f"no {path} (looked in {mnist.root})" in fault(mnist.root, mnist.dataset)


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Batches of five images in the pickles of CIFAR, with md5s to match."""
    cls = {"cifar10": torchvision_datasets.CIFAR10, "cifar100": torchvision_datasets.CIFAR100}[request.param]
    folder, generator = tmp_path / cls.base_folder, np.random.default_rng(0)
    folder.mkdir()
    for attribute in ("train_list", "test_list"):
        rows = []
        for name, _ in getattr(cls, attribute):
            data = generator.integers(0, 256, (5, 3072), dtype=np.uint8)
            label_key = "labels" if request.param == "cifar10" else "fine_labels"
            (folder / name).write_bytes(pickle.dumps({"data": data, label_key: [0, 1, 0, 1, 2]}))
            rows.append([name, md5(folder / name)])
        monkeypatch.setattr(cls, attribute, rows)
    meta = folder / cls.meta["filename"]
    meta.write_bytes(pickle.dumps({cls.meta["key"]: ["ant", "bee", "cow"]}))
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": md5(meta)})
    return SimpleNamespace(dataset=request.param, root=tmp_path, folder=folder, cls=cls)


def test_cifar_is_read_as_torchvision_reads_it(cifar: SimpleNamespace) -> None:
    splits = load(cifar.root, cifar.dataset)
    for images, is_train in ((splits.train, True), (splits.test, False)):
        reference = cifar.cls(cifar.root, train=is_train)
        assert torch.equal(images.images_PHWC, torch.from_numpy(np.ascontiguousarray(reference.data)))
        assert images.images_PHWC.is_contiguous() and images.labels_P.tolist() == reference.targets
    assert splits.spec.class_names == ("ant", "bee", "cow") and splits.spec.num_channels == 3


def test_a_damaged_batch_of_cifar_is_noticed(cifar: SimpleNamespace) -> None:
    path = cifar.folder / cifar.cls.test_list[0][0]
    path.write_bytes(path.read_bytes() + b"0")
    assert f"{cifar.folder.name} is incomplete or damaged" in fault(cifar.root, cifar.dataset)


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
    splits = load(tmp_path, "svhn")
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
    assert fault(tmp_path, "svhn") == "data set svhn needs the package scipy: pip install scipy"


@pytest.mark.parametrize("dataset", list(torchvision_sets._SETS))
def test_missing_data_are_named_with_the_three_ways_on(tmp_path: Path, dataset: str) -> None:
    message = fault(tmp_path, dataset)
    assert message.startswith(f"data set {dataset} not found: no {torchvision_sets._SETS[dataset].files[0]}")
    assert f"(looked in {tmp_path})" in message
    for way in ("--dataset digits", "--download", "put the files there", "--dataset folder --data_dir TREE"):
        assert way in message
    assert list(tmp_path.iterdir()) == []  # nothing was written


# --- download ---------------------------------------------------------------------------------------------------------


def fail_with(error: Exception) -> Callable[..., None]:
    def construct(*_: object, download: bool = False, **__: object) -> None:
        raise error if download else RuntimeError("Dataset not found or corrupted.")

    return construct


@pytest.mark.parametrize(
    "error",
    [
        URLError("Name or service not known"),
        RuntimeError("Error downloading x.gz:\nTried https://a, got:\nName or service not known\n"),
        TimeoutError("timed out: Name or service not known"),
        http.client.IncompleteRead(b"", 9),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failed_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(torchvision_datasets, "CIFAR10", fail_with(error))
    message = fault(tmp_path, "cifar10", download=True)
    assert message.startswith(f"cannot download cifar10 to {tmp_path}: ")
    assert ("Name or service not known" in message) != isinstance(error, http.client.IncompleteRead)
    assert socket.getdefaulttimeout() is None


def test_a_download_has_a_timeout_and_a_lock_and_is_then_read(
    cifar: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty, lines, seen = tmp_path_factory.mktemp("empty") / "new", [], []

    def fetch(self: object) -> None:
        with (empty / ".download.lock").open() as stream, pytest.raises(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        seen.append(socket.getdefaulttimeout())
        cifar.folder.rename(empty / cifar.folder.name)

    monkeypatch.setattr(cifar.cls, "download", fetch)
    splits = load(empty, cifar.dataset, lines, download=True)
    assert splits.test.num_images == 5
    assert seen == [30.0] and socket.getdefaulttimeout() is None
    assert lines == [f"Downloading {cifar.dataset} to {empty}"]


def test_nothing_is_fetched_or_written_where_the_data_are_there(
    cifar: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar.cls, "download", lambda _: pytest.fail("fetched"))
    load(cifar.root, cifar.dataset, download=True)
    assert [path.name for path in cifar.root.iterdir()] == [cifar.folder.name]


def test_a_second_download_waits_for_the_first(tmp_path: Path) -> None:
    lines: list[str] = []
    entered = threading.Event()

    def second() -> None:
        with torchvision_sets._lock(tmp_path, lines.append):
            entered.set()

    thread = threading.Thread(target=second)
    with torchvision_sets._lock(tmp_path, pytest.fail):
        thread.start()
        assert not entered.wait(0.2)
    thread.join(10)
    assert entered.is_set() and lines == [f"Waiting for another process that downloads to {tmp_path}"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = fault(tmp_path / "file" / "data", "mnist", download=True)
    assert message.startswith(f"cannot download mnist to {tmp_path / 'file' / 'data'}: ")
