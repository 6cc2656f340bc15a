"""Data that are damaged, half there, or wanted by two processes at once."""

from __future__ import annotations

import hashlib
import io
import pickle
import random
import tarfile
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from datamodules import cache
from tests.datamodules.conftest import cifar as cifar  # fixtures, under their own names
from tests.datamodules.conftest import fault, load, tree
from tests.datamodules.test_mnist import mnist as mnist
from tests.faults import inject
from tests.faults.process import CONTEXT, finish, start

__all__ = ["tree"]
TRIES = 25


def spoil(path: Path, random_: random.Random) -> None:
    """Flip a bit, or cut the file."""
    content = bytearray(path.read_bytes())
    place = random_.randrange(len(content))
    if random_.random() < 0.3:
        del content[place:]
    else:
        content[place] ^= 1 << random_.randrange(8)
    path.write_bytes(content)


def check_every_file(dataset: str, root: Path, files: list[Path]) -> None:
    random_ = random.Random(0)
    for count in range(TRIES):
        path = files[count % len(files)]
        before = path.read_bytes()
        spoil(path, random_)
        assert "damaged" in fault(dataset, root), path
        path.write_bytes(before)
    load(dataset, root)


def test_spoilt_files_of_cifar_are_refused(cifar: SimpleNamespace) -> None:
    check_every_file(cifar.dataset, cifar.root, sorted(cifar.folder.iterdir()))


def test_spoilt_files_of_mnist_are_refused(mnist: SimpleNamespace) -> None:
    check_every_file(mnist.dataset, mnist.root, sorted(mnist.raw.iterdir()))


def test_spoilt_files_of_svhn_are_refused(tmp_path: Path) -> None:
    """Its files are too large to be made here, but nothing else has their md5."""
    for name in ("train_32x32.mat", "test_32x32.mat"):
        (tmp_path / name).write_bytes(b"MATLAB 5.0 MAT-file" + bytes(1000))
    assert "is incomplete or damaged" in fault("svhn", tmp_path)


def test_an_unreadable_image_ends_the_command_before_training(tree: Path) -> None:
    (tree / "train" / "dog" / "2.png").write_bytes(b"no image")
    run = finish(["--dataset", "folder", "--data_dir", str(tree), "--device", "cpu"], tree)
    [line] = run.errors()
    assert run.exit_code() == 1
    assert line.startswith(f"main.py: error: cannot read image {tree / 'train' / 'dog' / '2.png'}: ")
    assert not (tree / "experiments").exists()


@pytest.mark.faults
def test_kill_9_leaves_a_whole_cache_or_none(tmp_path: Path) -> None:
    random_ = random.Random(0)
    interrupted = 0
    for attempt in range(20):
        (tmp_path / str(attempt)).mkdir()
        path = tmp_path / str(attempt) / "cache.npz"
        process = CONTEXT.Process(target=inject.fill_cache_for_ever, args=(path,))
        process.start()
        while not (path.parent / "saved").exists():
            time.sleep(0.001)
        time.sleep(random_.uniform(0, 0.05))
        process.kill()
        process.join()
        interrupted += any(path.parent.glob(".*.tmp"))
        found = cache.load(path, 40, 4)
        assert found is not None and (found[0] == 7).all() and (found[1] == 7).all()
    assert interrupted > 3  # else the moments were not where they matter


REQUESTS = 2  # of one download: torchvision first asks where the address leads, and drops that answer


class Mirror:
    """CIFAR-10's archive with five images a batch, on loopback; ``stall`` stops in the middle until it is set."""

    def __init__(self) -> None:
        self.files = {f"data_batch_{number}": self._batch(number) for number in range(1, 6)}
        self.files |= {
            "test_batch": self._batch(6),
            "batches.meta": pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}),
        }
        self.archive = self._pack()
        self.requests = 0
        self.stall = threading.Event()
        self.stall.set()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.server.handle_error = lambda *words: None  # clients that drop an answer are what this is about
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/cifar-10-python.tar.gz"

    @staticmethod
    def _batch(seed: int) -> bytes:
        data = np.random.default_rng(seed).integers(0, 256, (20, 3072), dtype=np.uint8)
        return pickle.dumps({"data": data, "labels": list(range(10)) * 2})

    def _pack(self) -> bytes:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as archive:
            for name, content in self.files.items():
                member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return stream.getvalue()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *words: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self.send_response(200)
                self.send_header("content-length", str(len(mirror.archive)))
                self.end_headers()

            def do_GET(self) -> None:
                mirror.requests += 1
                self.do_HEAD()
                half = len(mirror.archive) // 2
                self.wfile.write(mirror.archive[:half])
                self.wfile.flush()
                mirror.stall.wait()
                self.wfile.write(mirror.archive[half:])

        return Handler

    def __enter__(self) -> Mirror:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stall.set()
        self.server.shutdown()
        self.server.server_close()

    def facts(self) -> dict[str, object]:
        """What torchvision's class must say for this archive to be the right one."""
        md5 = {name: hashlib.md5(content).hexdigest() for name, content in self.files.items()}
        return {
            "url": self.url,
            "tgz_md5": hashlib.md5(self.archive).hexdigest(),
            "train_list": [[f"data_batch_{number}", md5[f"data_batch_{number}"]] for number in range(1, 6)],
            "test_list": [["test_batch", md5["test_batch"]]],
            "meta": {"filename": "batches.meta", "key": "label_names", "md5": md5["batches.meta"]},
        }


def use_mirror(facts: dict[str, object]) -> None:
    from torchvision.datasets import CIFAR10

    for name, value in facts.items():
        setattr(CIFAR10, name, value)


WORDS = [
    *"--dataset cifar10 --download --data_dir data --epochs 1 --batch_size 20 --model VGGs --device cpu".split(),  # noqa: SIM905
    *["--precision", "fp32", "--wandb", "disabled"],
]


@pytest.mark.faults
def test_two_processes_download_one_set_once(tmp_path: Path) -> None:
    with Mirror() as mirror:
        runs = [start(WORDS, tmp_path, partial(use_mirror, mirror.facts())) for _ in range(2)]
        assert [run.exit_code() for run in runs] == [0, 0]  # on stderr is torchvision's progress bar
        assert mirror.requests == REQUESTS
    assert sum(run.warnings("Waiting for another process that downloads") for run in runs) <= 1


@pytest.mark.faults
def test_a_download_that_was_killed_is_taken_up(tmp_path: Path) -> None:
    with Mirror() as mirror:
        mirror.stall.clear()
        first = start(WORDS, tmp_path, partial(use_mirror, mirror.facts()))
        while mirror.requests < REQUESTS:
            time.sleep(0.01)
        time.sleep(0.2)
        first.process.kill()
        assert first.exit_code() == -9
        mirror.stall.set()
        again = finish(WORDS, tmp_path, partial(use_mirror, mirror.facts()))
        assert (again.exit_code(), mirror.requests) == (0, 2 * REQUESTS)
