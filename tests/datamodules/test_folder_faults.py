"""What every fault of a tree is called: one line that names the folder or the file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules import folder
from tests.datamodules.conftest import cache_files, fault, pixels, write


@pytest.mark.parametrize(
    ("gone", "what"), [("", "no such folder"), ("train", "no folder train"), ("test", "no folder test")]
)
def test_missing_folders_are_named_with_the_ways_on(tree: Path, gone: str, what: str) -> None:
    shutil.rmtree(tree / gone)
    message = fault("folder", tree)
    assert message.startswith(f"data set folder not found: {what} (looked in {tree})")
    assert "--dataset digits" in message and "train/CLASS/*" in message and "--data_dir TREE" in message
    assert "--dataset folder" not in message  # which was asked for


def test_a_file_in_place_of_the_tree(tmp_path: Path) -> None:
    (tmp_path / "x.npz").touch()
    assert "it is a file, which --dataset arrays may read" in fault("folder", tmp_path / "x.npz")


def test_one_class_is_refused_before_anything_is_decoded(tree: Path) -> None:
    for split in ("train", "test"):
        shutil.rmtree(tree / split / "dog")
        (tree / split / "cat" / "0.png").write_bytes(b"no image")
    assert fault("folder", tree) == f"{tree / 'train'}: one class only, cat; a classifier needs two or more"


def test_a_relative_folder_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"(looked in {tmp_path / 'nowhere'})" in fault("folder", Path("nowhere"))


def test_no_classes(tree: Path) -> None:
    (tree / "train").rename(tree / "old")
    (tree / "train").mkdir()
    write(tree / "train" / "0.png", pixels(0))
    assert (
        fault("folder", tree) == f"{tree / 'train'}: no class folders; the images belong in {tree / 'train' / 'CLASS'}"
    )


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_class(tree: Path, split: str) -> None:
    for path in (tree / split / "dog").iterdir():
        path.unlink()
    (tree / split / "dog" / "notes.txt").write_text("x")
    assert fault("folder", tree).startswith(f"{tree / split / 'dog'}: no images")


def test_a_class_that_one_of_the_splits_lacks(tree: Path) -> None:
    (tree / "test" / "emu").mkdir()
    assert fault("folder", tree) == f"{tree / 'test' / 'emu'}: train has no class emu, only cat, dog"
    (tree / "test" / "emu").rename(tree / "train" / "emu")
    assert fault("folder", tree).startswith(f"{tree / 'train' / 'emu'}: test has no class emu")


@pytest.mark.parametrize("content", [b"", b"no image", None], ids=["empty", "text", "cut"])
def test_an_image_that_cannot_be_read(tree: Path, content: bytes | None) -> None:
    path = tree / "train" / "dog" / "2.png"
    path.write_bytes(path.read_bytes()[:-40] if content is None else content)
    assert fault("folder", tree).startswith(f"cannot read image {path}: ")
    assert cache_files() == []


def test_the_first_bad_image_is_the_one_that_is_named(tree: Path) -> None:
    for name in ("1.png", "2.png"):
        (tree / "train" / "cat" / name).write_bytes(b"no image")
    assert str(tree / "train" / "cat" / "1.png") in fault("folder", tree)


def test_an_image_for_which_there_is_no_memory(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(folder, "_pixels", refuse)
    assert fault("folder", tree) == f"not enough memory to decode {tree / 'train' / 'cat' / '0.png'}"


def test_images_of_different_sizes(tree: Path) -> None:
    path = tree / "test" / "dog" / "0.png"
    write(path, pixels(0, (6, 9, 3)))
    expected = f"{tree / 'train' / 'cat' / '0.png'} has 5x6 and {path} 9x6 pixels"
    assert fault("folder", tree) == (
        f"the images differ in size: {expected}; give --image_size N to scale and crop them to NxN"
    )


def test_an_image_that_changes_its_size_meanwhile(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_shape", lambda *_: (8, 4, 5, 3))
    assert fault("folder", tree).endswith(".png was changed while the images were read; start again")
    assert cache_files() == []


def test_more_than_8_bits_per_channel(tree: Path) -> None:
    """Pillow would clip them to white without a word."""
    path = tree / "train" / "cat" / "0.png"
    write(path, pixels(0, (6, 5)).astype(np.uint16) * 200)
    assert fault("folder", tree) == f"cannot read image {path}: more than 8 bits per channel; save it with 8"


def test_a_folder_that_cannot_be_listed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, closed = os.scandir, tree / "train" / "dog"

    def scandir(path: Path) -> object:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert fault("folder", tree) == f"cannot read {closed}: Permission denied"


def test_an_image_without_permission(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, closed = Image.open, tree / "train" / "dog" / "0.png"

    def open_image(path: Path) -> Image.Image:
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Image, "open", open_image)
    assert fault("folder", tree) == f"cannot read image {closed}: Permission denied"
