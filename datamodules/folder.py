"""A tree ``train/CLASS/*`` and ``test/CLASS/*`` of images, read once and then from a cache."""

from __future__ import annotations

import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from consts import TEST, TRAIN
from datamodules import cache
from datamodules.base import Announce, ImageSet, Source, missing_data
from schemas import DataArgs
from utils import UserError

_CHUNK = 128  # images a thread decodes in a row: large enough that handing out work costs nothing
_MAX_THREADS = 16  # Pillow holds the interpreter's lock much of the time: more threads would only wait for it
_GREY_MODES = ("1", "L")


class File(NamedTuple):
    """An image file: its name relative to the tree, its label, and what tells that it has changed."""

    name: str
    label: int
    size_bytes: int
    mtime_ns: int


class Tree(NamedTuple):
    """The files of a tree, classes and names in sorted order."""

    root: Path
    class_names: tuple[str, ...]
    train: list[File]
    test: list[File]

    def key(self) -> str:
        """64 hexadecimal digits that change when a file is added, removed, renamed or changed."""
        digest = hashlib.sha256(str(cache.VERSION).encode())
        for file in (*self.train, *self.test):
            digest.update(os.fsencode(f"\0{file.name}\0{file.size_bytes}\0{file.mtime_ns}"))
        return digest.hexdigest()


def read(args: DataArgs, announce: Announce, progress: bool) -> Source:
    """The images of the tree ``--data_dir``.

    Raises:
        UserError: the tree is not as it must be; the message names the folder or file.
    """
    try:
        tree = scan(Path(args.data_dir).expanduser())
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error
    path = cache.cache_path(tree.root, tree.key())
    pixels = cache.load(path, len(tree.train), len(tree.test))
    if pixels is None:
        pixels = decode(tree, progress)
        cache.save(path, *pixels, announce)
    train, test = (
        ImageSet(torch.from_numpy(images), torch.tensor([file.label for file in files]))
        for images, files in zip(pixels, (tree.train, tree.test), strict=True)
    )
    return Source(train, test, tree.class_names)


def scan(root: Path) -> Tree:
    """List the files. Classes are the sub-folders of ``train``; hidden entries and other files are passed over.

    Raises:
        UserError: a folder is missing or empty, or train and test differ in their classes.
        OSError: a folder cannot be read.
    """
    if not root.is_dir():
        raise missing_data("folder", "no such folder", root)
    train, test = ({entry.name: entry for entry in _class_folders(root, split)} for split in (TRAIN, TEST))
    for name in sorted(test.keys() - train.keys()):
        raise UserError(f"{test[name].path}: train has no class {name}, only {', '.join(train)}")
    for name in sorted(train.keys() - test.keys()):
        raise UserError(f"{train[name].path}: test has no class {name}; train and test must have the same classes")
    files = (
        [file for label, name in enumerate(train) for file in _files(root, f"{split}/{name}", label)]
        for split in (TRAIN, TEST)
    )
    return Tree(root, tuple(train), *files)


def _class_folders(root: Path, split: str) -> list[os.DirEntry[str]]:
    folder = root / split
    if not folder.is_dir():
        raise missing_data("folder", f"no folder {split}", root)
    found = [entry for entry in _visible(folder) if entry.is_dir()]
    if not found:
        raise UserError(f"{folder}: no class folders; the images belong in {folder / 'CLASS'}")
    return found


def _files(root: Path, folder: str, label: int) -> list[File]:
    known, found = Image.registered_extensions(), []
    for entry in _visible(root / folder):
        if entry.is_file() and os.path.splitext(entry.name)[1].lower() in known:
            state = entry.stat()
            found.append(File(f"{folder}/{entry.name}", label, state.st_size, state.st_mtime_ns))
    if not found:
        raise UserError(f"{root / folder}: no images (files with an extension that Pillow knows, as .png or .jpg)")
    return found


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted, without what file managers and notebooks leave there (as .ipynb_checkpoints)."""
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def decode(tree: Tree, progress: bool) -> tuple[cache.Pixels, cache.Pixels]:
    """Training and test images (PHWC), three channels unless every image is grey.

    Raises:
        UserError: an image cannot be read, or differs in size from the first one.
    """
    paths = [tree.root / file.name for file in (*tree.train, *tree.test)]
    height, width = _decode_image(paths[0])[0].shape[:2]
    pixels_PHWC = np.empty((len(paths), height, width, 3), np.uint8)
    is_grey_P = np.empty(len(paths), bool)

    def decode_chunk(start: int) -> int:
        chunk = range(start, min(start + _CHUNK, len(paths)))
        for index in chunk:
            pixels, is_grey_P[index] = _decode_image(paths[index])
            if pixels.shape[:2] != (height, width):
                sizes = f"{paths[0]} is {width}x{height}, {paths[index]} is {pixels.shape[1]}x{pixels.shape[0]} pixels"
                raise UserError(f"the images must have one size: {sizes}")
            pixels_PHWC[index] = pixels
        return len(chunk)

    hidden = not (progress and sys.stderr.isatty())
    with (
        ThreadPoolExecutor(min(os.cpu_count() or 1, _MAX_THREADS)) as pool,
        tqdm(total=len(paths), desc="Decoding images", unit="img", disable=hidden, leave=False) as bar,
    ):
        for count in pool.map(decode_chunk, range(0, len(paths), _CHUNK)):  # in order: always the same file is blamed
            bar.update(count)
    if is_grey_P.all():
        pixels_PHWC = np.ascontiguousarray(pixels_PHWC[..., :1])
    return pixels_PHWC[: len(tree.train)], pixels_PHWC[len(tree.train) :]


def _decode_image(path: Path) -> tuple[cache.Pixels, bool]:
    """Pixels (HWC, three channels), and whether the image is grey."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):  # Pillow would clip them to white
                raise ValueError("more than 8 bits per channel; save it with 8")
            return np.asarray(image.convert("RGB")), image.mode in _GREY_MODES
    except Exception as error:  # a damaged file makes Pillow raise OSError, SyntaxError, ValueError, struct.error, ...
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise UserError(f"cannot read image {path}: {reason or type(error).__name__}") from error
