"""Fetching a set, with torchvision's part played by a stand-in: nothing here reaches for the network."""

from __future__ import annotations

import fcntl
import http.client
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import pytest
import torchvision.datasets as torchvision_datasets

from datamodules.parallel import held
from tests.datamodules.conftest import fault, load


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
    message = fault("cifar10", tmp_path, download=True)
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
    splits = load(cifar.dataset, empty, lines, download=True)
    assert splits.test.num_images == 5
    assert seen == [30.0] and socket.getdefaulttimeout() is None
    assert lines == [f"Downloading {cifar.dataset} to {empty}"]


def test_nothing_is_fetched_or_written_where_the_data_are_there(
    cifar: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar.cls, "download", lambda _: pytest.fail("fetched"))
    load(cifar.dataset, cifar.root, download=True)
    assert [path.name for path in cifar.root.iterdir()] == [cifar.folder.name]


def test_a_second_download_waits_for_the_first(tmp_path: Path) -> None:
    lines: list[str] = []
    entered = threading.Event()

    def second() -> None:
        with held(tmp_path / "lock", lines.append, "downloads to a folder") as is_held:
            assert is_held
            entered.set()

    thread = threading.Thread(target=second)
    with held(tmp_path / "lock", pytest.fail, "downloads to a folder"):
        thread.start()
        assert not entered.wait(0.2)
    thread.join(10)
    assert entered.is_set() and lines == ["Waiting for another process that downloads to a folder"]


def test_a_file_system_without_locks_is_no_hindrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with held(tmp_path / "lock", pytest.fail, "works") as is_held:
        assert not is_held


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = fault("mnist", tmp_path / "file" / "data", download=True)
    assert message.startswith(f"cannot download mnist to {tmp_path / 'file' / 'data'}: ")
