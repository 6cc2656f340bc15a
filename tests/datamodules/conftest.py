"""Small data sets on disk, in the forms that the sources read, and how to read them."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import cache, load_data
from datamodules.base import Splits
from schemas import DataArgs
from utils import UserError


def load(dataset: str, root: Path, lines: list[str] | None = None, **settings: object) -> Splits:
    """Read ``root``; lines for the user go to ``lines``, and without it are a failure. A tree may be decoded."""

    def announce(line: str) -> None:
        if not line.startswith("Decoding "):
            pytest.fail(line) if lines is None else lines.append(line)

    args = DataArgs(dataset=dataset, data_dir=str(root), **settings)
    return load_data(args, announce=announce, progress=False)


def fault(dataset: str, root: Path, **settings: object) -> str:
    """The one line with which reading ``root`` ends."""
    with pytest.raises(UserError) as caught:
        load(dataset, root, [], **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def pixels(seed: int, shape: tuple[int, ...] = (6, 5, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, which is empty."""
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))
    return path


@pytest.fixture
def tree(tmp_path: Path, cache_home: Path) -> Path:
    """Two classes, of each three training images and one test image, as PNG; the pixels follow from the number."""
    for label, name in enumerate(("cat", "dog")):
        for number in range(3):
            write(tmp_path / "train" / name / f"{number}.png", pixels(10 * label + number))
        write(tmp_path / "test" / name / "0.png", pixels(100 + label))
    return tmp_path


def cache_files() -> list[Path]:
    return sorted(cache.home().rglob("*.npy"))


def same(first: Splits, second: Splits) -> bool:
    pairs = [*zip(first.train, second.train, strict=True), *zip(first.test, second.test, strict=True)]
    return all(torch.equal(one[:], other[:]) for one, other in pairs) and first.spec == second.spec


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Batches of five images in the pickles of CIFAR, with md5s to match."""
    import torchvision.datasets as torchvision_datasets  # here, because it takes seconds

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
