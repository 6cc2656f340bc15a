"""Data that are damaged, half there, or wanted by two processes at once."""

from __future__ import annotations

import hashlib
import io
import pickle
import random
import resource
import tarfile
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datamodules import cache
from tests.datamodules.conftest import cache_home, fault, load, pixels, tree, write
from tests.datamodules.conftest import cifar as cifar  # fixtures, under their own names
from tests.datamodules.test_mnist import mnist as mnist
from tests.faults import inject
from tests.faults.conftest import last_state
from tests.faults.disks import small_disk
from tests.faults.process import CONTEXT, finish, start
from tests.faults.test_memory import limit_memory

__all__ = ["cache_home", "tree"]
TRIES = 25
HOME = {"XDG_CACHE_HOME": "cache"}  # below the folder in which a run is started


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
    run = finish(["--dataset", "folder", "--data_dir", str(tree), "--device", "cpu"], tree, env=HOME)
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
        path = tmp_path / str(attempt) / f"{attempt:064d}.npy"
        process = CONTEXT.Process(target=inject.fill_cache_for_ever, args=(path,))
        process.start()
        while not (path.parent / "saved").exists():
            time.sleep(0.001)
        time.sleep(random_.uniform(0, 0.05))
        process.kill()
        process.join()
        interrupted += any(path.parent.glob(".*.tmp"))
        found = cache.load(path, 44)
        assert found is not None and (found[:] == 7).all()
        cache.forget_others(path)
        assert not any(path.parent.glob(".*.tmp"))
    assert interrupted > 3  # else the moments were not where they matter


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """The command that trains on a tree of images of mixed sizes, which take 8 MB as 96x96 pixels."""
    for label, name in enumerate(("cat", "dog")):
        for number in range(140):
            write(tmp_path / "tree" / "train" / name / f"{number}.png", pixels(number, (8 + number % 9, 12 - label, 3)))
        for number in range(4):
            write(tmp_path / "tree" / "test" / name / f"{number}.png", pixels(number, (9, 9, 3)))
    words = "--dataset folder --data_dir tree --image_size 96 --epochs 1 --batch_size 100 --model VGGs --device cpu "
    return (words + "--mlp_hidden_dim 16 --precision fp32 --wandb disabled").split()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_kill_9_while_images_are_decoded_leaves_no_rubbish_for_long(pictures: list[str], tmp_path: Path) -> None:
    killed = finish(pictures, tmp_path, partial(inject.kill_while_decoding, 100), HOME)
    assert killed.exit_code() == -9
    [left, lock] = files(tmp_path / "cache")
    assert left.endswith(".tmp") and lock == "lock"
    again = finish(pictures, tmp_path, env=HOME)
    assert (again.exit_code(), again.errors()) == (0, [])
    [cached, lock] = files(tmp_path / "cache")
    assert cached.endswith(".npy") and lock == "lock"
    assert again.warnings("Every epoch leaves out 80 of 280 images, other ones each time: no full batch") == 1


def test_a_disk_without_room_for_the_cache_costs_one_line(pictures: list[str], tmp_path: Path) -> None:
    with small_disk(tmp_path / "cache", 2**20):
        run = finish(pictures, tmp_path, env=HOME)
        assert (run.exit_code(), run.errors()) == (0, [])
        assert files(tmp_path / "cache") == ["lock"]
    assert run.warnings("No image cache in ") == run.warnings("(No space left on device): the images are decoded") == 1
    assert finish(pictures, tmp_path, env=HOME).exit_code() == 0
    assert same_state(*(tmp_path / "experiments").iterdir())


def test_a_file_size_limit_costs_one_line(pictures: list[str], tmp_path: Path) -> None:
    limit = 5 * 2**20
    run = finish(pictures, tmp_path, partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit)), HOME)
    assert (run.exit_code(), run.errors()) == (0, [])
    assert run.warnings("(File too large): the images are decoded anew in every run") == 1


def same_state(*folders: Path) -> bool:
    one, two = (last_state(folder)["method"] for folder in folders)
    return all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.faults
def test_two_processes_decode_one_tree_once(pictures: list[str], tmp_path: Path) -> None:
    runs = [start(pictures, tmp_path, env=HOME) for _ in range(2)]
    assert [(run.exit_code(), run.errors()) for run in runs] == [(0, []), (0, [])]
    assert len(files(tmp_path / "cache")) == 2
    assert sum(run.warnings("Waiting for another process that decodes the images of tree") for run in runs) <= 1
    assert same_state(*(tmp_path / "experiments").iterdir())


@pytest.mark.faults
def test_a_set_larger_than_the_memory_of_the_process_is_trained(tmp_path: Path) -> None:
    """With the bits of a run that has memory. 1,500 images of 384x384 pixels are 633 MiB."""
    for label, name in enumerate(("cat", "dog")):
        for number in range(750):
            path = tmp_path / "tree" / "train" / name / f"{number}.png"
            write(path, np.full((8 + number % 9, 12 - label, 3), (number, 90 * label, 7), np.uint8))
        write(tmp_path / "tree" / "test" / name / "0.png", pixels(label, (9, 9, 3)))
    words = "--dataset folder --data_dir tree --image_size 384 --epochs 1 --batch_size 4 --model VGGs --device cpu "
    words += "--train_size 200 --mlp_hidden_dim 16 --precision fp32 --wandb disabled --normalization unit_gaussian"
    run = finish(words.split(), tmp_path, partial(limit_memory, 550 * 2**20), HOME)
    assert (run.exit_code(), run.errors()) == (0, [])
    assert finish(words.split(), tmp_path, env=HOME).exit_code() == 0
    assert same_state(*(tmp_path / "experiments").iterdir())


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
