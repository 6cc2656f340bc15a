"""What is read of a tree of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from datamodules import parallel
from tests.datamodules.conftest import load, pixels, same, write


def test_pixels_labels_and_classes_are_those_of_the_files(tree: Path) -> None:
    splits = load("folder", tree)
    expected = np.stack([pixels(seed) for seed in (0, 1, 2, 10, 11, 12)])
    assert torch.equal(splits.train.images_PHWC[:], torch.from_numpy(expected))
    assert splits.train.labels_P.tolist() == [0, 0, 0, 1, 1, 1] and splits.train.labels_P.dtype == torch.int64
    assert torch.equal(splits.test.images_PHWC[:], torch.from_numpy(np.stack([pixels(100), pixels(101)])))
    spec = splits.spec
    assert (spec.class_names, spec.num_channels, spec.height, spec.width) == (("cat", "dog"), 3, 6, 5)


def test_many_images_keep_their_order(tmp_path: Path) -> None:
    """More than one thread's portion."""
    count = 2 * parallel._CHUNK + 3
    for number in range(count):
        write(tmp_path / "train" / "a" / f"{number:04d}.png", np.full((2, 2), number % 251, np.uint8))
    for path in ("test/a/0.png", "train/b/0.png", "test/b/0.png"):
        write(tmp_path / path, pixels(0, (2, 2)))
    images = load("folder", tmp_path).train.images_PHWC
    assert images[:count][:, 0, 0, 0].tolist() == [number % 251 for number in range(count)]


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
    assert torch.equal(splits.train.images_PHWC[0][..., 0], torch.from_numpy(pixels(1, (4, 4))))


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


def mixed(root: Path) -> dict[str, tuple[int, int]]:
    """A tree of two classes with images of other sizes; (height, width) by name."""
    sizes = {"train/a/0": (9, 9), "train/a/1": (40, 23), "train/b/0": (5, 70), "test/a/0": (16, 9), "test/b/0": (7, 8)}
    for number, (name, size) in enumerate(sizes.items()):
        write(root / f"{name}.png", pixels(number, (*size, 3)))
    return sizes


@pytest.mark.parametrize("size", [9, 12])
def test_images_of_any_size_are_scaled_and_cropped(tmp_path: Path, size: int) -> None:
    sizes = list(mixed(tmp_path).values())
    splits = load("folder", tmp_path, image_size=size)
    assert (splits.spec.height, splits.spec.width, splits.spec.num_channels) == (size, size, 3)
    for number, image_HWC in enumerate(torch.cat((splits.train.images_PHWC[:], splits.test.images_PHWC[:]))):
        source = Image.fromarray(pixels(number, (*sizes[number], 3)))
        side = min(source.size)
        left, top = ((length - side) / 2 for length in source.size)
        box = (left, top, left + side, top + side)
        expected = np.asarray(source.resize((size, size), Image.Resampling.BILINEAR, box))
        assert torch.equal(image_HWC, torch.from_numpy(expected.copy()))
    if size == 9:
        assert torch.equal(splits.train.images_PHWC[0], torch.from_numpy(pixels(0, (9, 9, 3))))  # nothing to do


def test_scaling_and_cropping_is_that_of_torchvision(tmp_path: Path) -> None:
    """But for the border, where torchvision sees pixels beyond the crop."""
    mixed(tmp_path)
    row, column = np.mgrid[0:40, 0:30]
    source = np.stack((6 * row, 8 * column, 3 * row + 4 * column), -1).astype(np.uint8)
    write(tmp_path / "train" / "a" / "0.png", source)
    image_HWC = load("folder", tmp_path, image_size=12).train.images_PHWC[0].numpy()
    steps = transforms.Compose([transforms.Resize(12), transforms.CenterCrop(12)])
    distance = np.abs(image_HWC.astype(int) - np.asarray(steps(Image.fromarray(source))))
    assert distance[1:-1, 1:-1].max() <= 1 and distance.max() <= 9


def test_grey_images_of_any_size_stay_one_channel(tmp_path: Path) -> None:
    for number, path in enumerate(("train/a", "train/b", "test/a", "test/b")):
        write(tmp_path / path / "0.png", pixels(number, (6 + number, 7)))
    splits = load("folder", tmp_path, image_size=4)
    assert splits.train.images_PHWC.shape == (2, 4, 4, 1)
    write(tmp_path / "test" / "b" / "0.png", pixels(5, (9, 9, 3)))
    assert load("folder", tmp_path, image_size=4).train.images_PHWC.shape == (2, 4, 4, 3)


def test_a_palette_and_transparency_become_colours(tmp_path: Path) -> None:
    mixed(tmp_path)
    Image.fromarray(pixels(0, (9, 9, 3))).quantize(8).save(tmp_path / "train" / "a" / "0.png")
    Image.fromarray(pixels(1, (9, 9, 4))).save(tmp_path / "train" / "a" / "1.png")
    images = load("folder", tmp_path, image_size=9).train.images_PHWC
    for number in (0, 1):
        expected = Image.open(tmp_path / "train" / "a" / f"{number}.png").convert("RGB")
        assert torch.equal(images[number], torch.from_numpy(np.array(expected)))
