"""What is read of a tree of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from datamodules import folder
from tests.datamodules.conftest import load, pixels, same, write


def test_pixels_labels_and_classes_are_those_of_the_files(tree: Path) -> None:
    splits = load("folder", tree)
    expected = np.stack([pixels(seed) for seed in (0, 1, 2, 10, 11, 12)])
    assert torch.equal(splits.train.images_PHWC, torch.from_numpy(expected))
    assert splits.train.labels_P.tolist() == [0, 0, 0, 1, 1, 1] and splits.train.labels_P.dtype == torch.int64
    assert torch.equal(splits.test.images_PHWC, torch.from_numpy(np.stack([pixels(100), pixels(101)])))
    spec = splits.spec
    assert (spec.class_names, spec.num_channels, spec.height, spec.width) == (("cat", "dog"), 3, 6, 5)


def test_many_images_keep_their_order(tmp_path: Path) -> None:
    """More than one thread's portion."""
    count = 2 * folder._CHUNK + 3
    for number in range(count):
        write(tmp_path / "train" / "a" / f"{number:04d}.png", np.full((2, 2), number % 251, np.uint8))
    write(tmp_path / "test" / "a" / "0.png", pixels(0, (2, 2)))
    images = load("folder", tmp_path).train.images_PHWC
    assert images[:, 0, 0, 0].tolist() == [number % 251 for number in range(count)]


def test_jpeg_is_read_as_pillow_reads_it(tree: Path) -> None:
    path = tree / "train" / "cat" / "3.jpeg"
    write(path, pixels(7))
    assert torch.equal(load("folder", tree).train.images_PHWC[3], torch.from_numpy(np.array(Image.open(path))))


def test_grey_images_stay_one_channel(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / split / "a" / "0.png", pixels(1, (4, 4)))
        write(tmp_path / split / "b" / "0.jpg", pixels(2, (4, 4)))
    splits = load("folder", tmp_path)
    assert splits.train.images_PHWC.shape == (2, 4, 4, 1) and splits.spec.num_channels == 1
    assert torch.equal(splits.train.images_PHWC[0, :, :, 0], torch.from_numpy(pixels(1, (4, 4))))
    assert splits.train.images_PHWC.is_contiguous()


def test_one_colour_image_makes_all_of_them_colour(tree: Path) -> None:
    write(tree / "train" / "cat" / "1.png", pixels(1, (6, 5)))
    images = load("folder", tree).train.images_PHWC
    assert images.shape[-1] == 3
    assert torch.equal(images[1], torch.from_numpy(pixels(1, (6, 5)))[..., None].expand(-1, -1, 3))


def test_other_files_and_hidden_folders_are_passed_over(tree: Path) -> None:
    before = load("folder", tree)
    (tree / "train" / "cat" / "notes.txt").write_text("x")
    (tree / "train" / "cat" / ".hidden.png").write_text("x")
    (tree / "train" / ".ipynb_checkpoints").mkdir()
    (tree / "train" / "README").write_text("x")
    assert same(load("folder", tree), before)
