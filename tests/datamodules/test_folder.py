"""A tree of images: what is read, what the cache keeps, and what every fault is called."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import cache, folder, load_data
from datamodules.base import Splits
from schemas import DataArgs
from utils import UserError


def pixels(seed: int, shape: tuple[int, ...] = (6, 5, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes, of each three training images and one test image, as PNG; the pixels follow from the number."""
    for label, name in enumerate(("cat", "dog")):
        for number in range(3):
            write(tmp_path / "train" / name / f"{number}.png", pixels(10 * label + number))
        write(tmp_path / "test" / name / "0.png", pixels(100 + label))
    return tmp_path


def load(root: Path, lines: list[str] | None = None) -> Splits:
    announce = (lambda line: pytest.fail(line)) if lines is None else lines.append
    return load_data(DataArgs(dataset="folder", data_dir=str(root)), announce=announce, progress=False)


def cache_files(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_file())


def same(first: Splits, second: Splits) -> bool:
    pairs = [*zip(first.train, second.train, strict=True), *zip(first.test, second.test, strict=True)]
    return all(torch.equal(*pair) for pair in pairs) and first.spec == second.spec


def fault(root: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(root)
    message = str(caught.value)
    assert "\n" not in message
    return message


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "decode", lambda *_: pytest.fail("the images were decoded again"))


# --- what is read -----------------------------------------------------------------------------------------------------


def test_pixels_labels_and_classes_are_those_of_the_files(tree: Path) -> None:
    splits = load(tree)
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
    images = load(tmp_path).train.images_PHWC
    assert images[:, 0, 0, 0].tolist() == [number % 251 for number in range(count)]


def test_jpeg_is_read_as_pillow_reads_it(tree: Path) -> None:
    path = tree / "train" / "cat" / "3.jpeg"
    write(path, pixels(7))
    assert torch.equal(load(tree).train.images_PHWC[3], torch.from_numpy(np.array(Image.open(path))))


def test_grey_images_stay_one_channel(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / split / "a" / "0.png", pixels(1, (4, 4)))
        write(tmp_path / split / "b" / "0.jpg", pixels(2, (4, 4)))
    splits = load(tmp_path)
    assert splits.train.images_PHWC.shape == (2, 4, 4, 1) and splits.spec.num_channels == 1
    assert torch.equal(splits.train.images_PHWC[0, :, :, 0], torch.from_numpy(pixels(1, (4, 4))))
    assert splits.train.images_PHWC.is_contiguous()


def test_one_colour_image_makes_all_of_them_colour(tree: Path) -> None:
    write(tree / "train" / "cat" / "1.png", pixels(1, (6, 5)))
    images = load(tree).train.images_PHWC
    assert images.shape[-1] == 3
    assert torch.equal(images[1], torch.from_numpy(pixels(1, (6, 5)))[..., None].expand(-1, -1, 3))


def test_other_files_and_hidden_folders_are_passed_over(tree: Path) -> None:
    before = load(tree)
    (tree / "train" / "cat" / "notes.txt").write_text("x")
    (tree / "train" / "cat" / ".hidden.png").write_text("x")
    (tree / "train" / ".ipynb_checkpoints").mkdir()
    (tree / "train" / "README").write_text("x")
    assert same(load(tree), before)


# --- the cache --------------------------------------------------------------------------------------------------------


def test_the_second_load_decodes_nothing_and_gives_the_same_bits(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(tree)
    assert len(cache_files(tree)) == 1
    forbid_decoding(monkeypatch)
    assert same(load(tree), first)


def test_a_changed_file_makes_the_cache_stale_and_the_old_one_goes(tree: Path) -> None:
    load(tree)
    old = cache_files(tree)
    write(tree / "train" / "dog" / "1.png", pixels(77))
    os.utime(tree / "train" / "dog" / "1.png", ns=(1, 1))
    assert torch.equal(load(tree).train.images_PHWC[4], torch.from_numpy(pixels(77)))
    assert len(cache_files(tree)) == 1 and cache_files(tree) != old


@pytest.mark.parametrize("change", ["size", "time", "name", "added", "removed"])
def test_every_change_of_the_tree_changes_the_key(tree: Path, change: str) -> None:
    before, path = folder.scan(tree).key(), tree / "test" / "cat" / "0.png"
    write(path.with_name("1.png"), pixels(1))
    with_two = folder.scan(tree).key()
    assert with_two != before
    if change == "size":
        state = path.stat()
        path.write_bytes(path.read_bytes() + b"0")
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    elif change == "time":
        os.utime(path, ns=(1, 1))
    elif change == "name":
        path.rename(path.with_name("2.png"))
    elif change == "added":
        write(path.with_name("2.png"), pixels(1))
    else:
        path.with_name("1.png").unlink()
    assert folder.scan(tree).key() != with_two


def damage_one_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = content.index(pixels(10).tobytes()) + 5
    content[place] ^= 1
    path.write_bytes(content)


def wrong_count(path: Path) -> None:
    cache.save(path, np.zeros((5, 6, 5, 3), np.uint8), np.zeros((2, 6, 5, 3), np.uint8), pytest.fail)


@pytest.mark.parametrize(
    "damage",
    [
        damage_one_byte,
        wrong_count,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-30]),
        lambda path: path.write_bytes(path.read_bytes()[:200]),
        lambda path: path.write_bytes(b"not an archive at all"),
    ],
    ids=["byte", "count", "empty", "end cut", "start only", "other"],
)
def test_a_damaged_cache_is_rebuilt_in_silence(tree: Path, damage: object, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(tree)
    damage(cache_files(tree)[0])  # type: ignore[operator]
    assert same(load(tree), first)
    forbid_decoding(monkeypatch)
    assert same(load(tree), first)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_cache_runs_no_code(tree: Path) -> None:
    first = load(tree)
    with cache_files(tree)[0].open("wb") as stream:
        np.savez(stream, train=np.array([Trap(tree / "sprung")], dtype=object), test=np.zeros(2))
    assert same(load(tree), first)
    assert not (tree / "sprung").exists()


def test_only_our_own_old_caches_are_removed(tree: Path) -> None:
    old = cache.cache_path(tree, "0" * 64)
    others = [tree / "beyond-backprop-cache-notes.npz", tree / "data.npz", tree / f"x{old.name}"]
    for path in (old, *others):
        path.write_text("x")
    load(tree)
    assert not old.exists() and all(path.exists() for path in others)


def test_a_folder_that_cannot_be_written_costs_one_line(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, lines = load(tree), []
    cache_files(tree)[0].unlink()

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(cache, "atomic_write", refuse)
    assert same(load(tree, lines), expected)
    assert len(lines) == 1 and "\n" not in lines[0]
    assert str(tree) in lines[0] and "Permission denied" in lines[0]
    assert cache_files(tree) == []


RACER = """
import sys
from pathlib import Path
from datamodules import load_data
from schemas import DataArgs
root = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(40):
    for path in root.glob("*.npz"):
        path.unlink(missing_ok=True)
    splits = load_data(DataArgs(dataset="folder", data_dir=str(root)))
    print(int(splits.train.images_PHWC.sum()))
"""


def test_two_processes_that_rebuild_the_cache_do_not_disturb_each_other(tree: Path) -> None:
    expected = load(tree)
    command = [sys.executable, "-c", RACER, str(tree)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == "ready\n"
        other.stdin.write("go\n")
        other.stdin.flush()
        for _ in range(40):
            for path in tree.glob("*.npz"):
                path.unlink(missing_ok=True)
            assert same(load(tree), expected)
        out, err = other.communicate(timeout=60)
    assert out.split() == [str(int(expected.train.images_PHWC.sum()))] * 40
    assert err == "" and other.returncode == 0  # no progress bar either, where stderr is no terminal
    assert not [name for name in os.listdir(tree) if name.endswith(".tmp")]


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gone", "what"), [("", "no such folder"), ("train", "no folder train"), ("test", "no folder test")]
)
def test_missing_folders_are_named_with_the_ways_on(tree: Path, gone: str, what: str) -> None:
    shutil.rmtree(tree / gone)
    message = fault(tree)
    assert message.startswith(f"data set folder not found: {what} (looked in {tree})")
    assert "--dataset digits" in message and "train/CLASS/*" in message and "--data_dir TREE" in message


def test_a_relative_folder_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"(looked in {tmp_path / 'nowhere'})" in fault(Path("nowhere"))


def test_no_classes(tree: Path) -> None:
    (tree / "train").rename(tree / "old")
    (tree / "train").mkdir()
    write(tree / "train" / "0.png", pixels(0))
    assert fault(tree) == f"{tree / 'train'}: no class folders; the images belong in {tree / 'train' / 'CLASS'}"


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_class(tree: Path, split: str) -> None:
    for path in (tree / split / "dog").iterdir():
        path.unlink()
    (tree / split / "dog" / "notes.txt").write_text("x")
    assert fault(tree).startswith(f"{tree / split / 'dog'}: no images")


def test_a_class_that_one_of_the_splits_lacks(tree: Path) -> None:
    (tree / "test" / "emu").mkdir()
    assert fault(tree) == f"{tree / 'test' / 'emu'}: train has no class emu, only cat, dog"
    (tree / "test" / "emu").rename(tree / "train" / "emu")
    assert fault(tree).startswith(f"{tree / 'train' / 'emu'}: test has no class emu")


@pytest.mark.parametrize("content", [b"", b"no image", None], ids=["empty", "text", "cut"])
def test_an_image_that_cannot_be_read(tree: Path, content: bytes | None) -> None:
    path = tree / "train" / "dog" / "2.png"
    path.write_bytes(path.read_bytes()[:-40] if content is None else content)
    assert fault(tree).startswith(f"cannot read image {path}: ")
    assert cache_files(tree) == []


def test_the_first_bad_image_is_the_one_that_is_named(tree: Path) -> None:
    for name in ("1.png", "2.png"):
        (tree / "train" / "cat" / name).write_bytes(b"no image")
    assert str(tree / "train" / "cat" / "1.png") in fault(tree)


def test_images_of_different_sizes(tree: Path) -> None:
    path = tree / "test" / "dog" / "0.png"
    write(path, pixels(0, (6, 9, 3)))
    expected = f"{tree / 'train' / 'cat' / '0.png'} is 5x6, {path} is 9x6 pixels"
    assert fault(tree) == f"the images must have one size: {expected}"


def test_more_than_8_bits_per_channel(tree: Path) -> None:
    """Pillow would clip them to white without a word."""
    path = tree / "train" / "cat" / "0.png"
    write(path, pixels(0, (6, 5)).astype(np.uint16) * 200)
    assert fault(tree) == f"cannot read image {path}: more than 8 bits per channel; save it with 8"


def test_a_folder_that_cannot_be_listed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, closed = os.scandir, tree / "train" / "dog"

    def scandir(path: Path) -> object:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert fault(tree) == f"cannot read {closed}: Permission denied"


def test_an_image_without_permission(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, closed = Image.open, tree / "train" / "dog" / "0.png"

    def open_image(path: Path) -> Image.Image:
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Image, "open", open_image)
    assert fault(tree) == f"cannot read image {closed}: Permission denied"
