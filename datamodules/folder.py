"""A tree ``train/CLASS/*`` and ``test/CLASS/*`` of images, decoded once and then read from a cache file."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from consts import TEST, TRAIN
from datamodules import cache
from datamodules.base import Announce, ImageSet, MissingData, Source, check_classes
from datamodules.parallel import by_chunks, held
from datamodules.stored import Stored
from schemas import DataArgs
from utils import UserError, free_memory_bytes, human_bytes

_GREY_MODES = ("1", "L")

Result = TypeVar("Result")


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

    @property
    def files(self) -> list[File]:
        """Those for training, then those of the test."""
        return [*self.train, *self.test]

    def key(self) -> str:
        """64 hexadecimal digits that change when a file is added, removed, renamed or changed."""
        digest = hashlib.sha256(str(cache.VERSION).encode())
        for file in self.files:
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
    parts = _images(tree, args.image_size, announce, progress).split((len(tree.train), len(tree.test)))
    train, test = (
        ImageSet(images, torch.tensor([file.label for file in files]))
        for images, files in zip(parts, (tree.train, tree.test), strict=True)
    )
    return Source(train, test, tree.class_names)


def scan(root: Path) -> Tree:
    """List the files. Classes are the sub-folders of ``train``; hidden entries and other files are passed over.

    Raises:
        UserError: a folder is missing or empty, there is one class, or train and test differ in their classes.
        OSError: a folder cannot be read.
    """
    if not root.is_dir():
        there = "it is a file, which --dataset arrays may read" if root.exists() else "no such folder"
        raise _missing(there, root)
    train, test = ({entry.name: entry for entry in _class_folders(root, split)} for split in (TRAIN, TEST))
    for name in sorted(test.keys() - train.keys()):
        raise UserError(f"{test[name].path}: train has no class {name}, only {', '.join(train)}")
    for name in sorted(train.keys() - test.keys()):
        raise UserError(f"{train[name].path}: test has no class {name}; train and test must have the same classes")
    check_classes(tuple(train), root / TRAIN)
    files = (
        [file for label, name in enumerate(train) for file in _files(root, f"{split}/{name}", label)]
        for split in (TRAIN, TEST)
    )
    return Tree(root, tuple(train), *files)


def _missing(what: str, root: Path) -> MissingData:
    """The error for a tree that is not there, with the ways on."""
    return MissingData(
        f"data set folder not found: {what} (looked in {root.absolute()})",
        f"give --data_dir TREE, a folder with images as {TRAIN}/CLASS/* and {TEST}/CLASS/*, or use --dataset digits "
        "(needs no files)",
    )


def _class_folders(root: Path, split: str) -> list[os.DirEntry[str]]:
    folder = root / split
    if not folder.is_dir():
        raise _missing(f"no folder {split}", root)
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


def _images(tree: Tree, image_size: int | None, announce: Announce, progress: bool) -> Stored | Tensor:
    """The images of a tree from its cache file, which is written where it is not there.

    Raises:
        UserError: an image cannot be read, or differs in size; or there is room neither on the disk nor in memory.
    """
    path, count = cache.cache_path(tree.root, image_size, tree.key()), len(tree.files)
    if found := cache.load(path, count, progress=progress):
        return found
    try:
        with held(path.with_name("lock"), announce, f"decodes the images of {tree.root}") as is_alone:
            if found := cache.load(path, count, progress=progress):  # the other process has written it
                return found
            announce(f"Decoding {count} images of {tree.root}, once: they are kept in {path.parent}")
            shape = _shape(tree, image_size, progress)
            images = cache.write(path, shape, lambda put: _decode(tree, image_size, shape, put, progress))
            if is_alone:
                cache.forget_others(path)
            return images
    except OSError as error:
        reason = f"No image cache in {cache.home()} ({error.strerror or error})"
    return _in_memory(tree, image_size, reason, announce, progress)


def _in_memory(tree: Tree, image_size: int | None, reason: str, announce: Announce, progress: bool) -> Tensor:
    """The images of a tree decoded into memory, for a ``reason`` that one line gives.

    Raises:
        UserError: an image cannot be read, or differs in size; or there is not enough memory.
    """
    shape = _shape(tree, image_size, progress)
    needed, free = math.prod(shape), free_memory_bytes()
    if needed > free:
        raise UserError(
            f"{reason}, and the images take {human_bytes(needed)} of memory, of which {human_bytes(free)} are free; "
            "set XDG_CACHE_HOME to a folder with room, or give a smaller --image_size"
        )
    announce(f"{reason}: the images are decoded anew in every run; XDG_CACHE_HOME can name another folder")
    pixels_PHWC = np.empty(shape, np.uint8)
    _decode(tree, image_size, shape, pixels_PHWC.__setitem__, progress)
    return torch.from_numpy(pixels_PHWC)


def _shape(tree: Tree, image_size: int | None, progress: bool) -> cache.Shape:
    """The shape (PHWC) of the decoded images, from the headers of the files; one channel if every image is grey.

    Raises:
        UserError: an image cannot be read; or two differ in size, and no ``image_size`` is given.
    """
    paths = [tree.root / file.name for file in tree.files]
    looks = by_chunks(lambda chunk: [_look_at(paths[i]) for i in chunk], len(paths), "Looking", progress=progress)
    first, is_grey = (0, 0), True
    for index, (size, has_no_colour) in enumerate(itertools.chain.from_iterable(looks)):
        first, is_grey = first if index else size, is_grey and has_no_colour
        if image_size is None and size != first:
            sizes = f"{paths[0]} has {first[0]}x{first[1]} and {paths[index]} {size[0]}x{size[1]} pixels"
            raise UserError(f"the images differ in size: {sizes}; give --image_size N to scale and crop them to NxN")
        if image_size is not None and not is_grey:
            break  # nothing more to be learned
    width, height = first if image_size is None else (image_size, image_size)
    return len(paths), height, width, 1 if is_grey else 3


def _decode(tree: Tree, image_size: int | None, shape: cache.Shape, put: cache.Put, progress: bool) -> None:
    """Decode every image, and hand it to ``put``.

    Raises:
        UserError: an image cannot be read.
    """
    files, mode = tree.files, "L" if shape[-1] == 1 else "RGB"

    def decode_chunk(chunk: range) -> None:
        for index in chunk:
            path = tree.root / files[index].name
            pixels_HWC = _opened(path, lambda image: _pixels(image, mode, image_size))
            if pixels_HWC.shape != shape[1:]:
                raise UserError(f"{path} was changed while the images were read; start again")
            put(index, pixels_HWC)

    for _ in by_chunks(decode_chunk, len(files), "Decoding images", progress=progress):
        pass


def _pixels(image: Image.Image, mode: str, image_size: int | None) -> cache.Pixels:
    """The pixels (HWC); with a size its shorter side is scaled to that, and the middle is taken.

    `ImageOps.fit` does both in one pass, bilinear and averaging over all pixels where it shrinks.
    """
    image = image.convert(mode)
    if image_size is not None:
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image.height, image.width, -1)


def _look_at(path: Path) -> tuple[tuple[int, int], bool]:
    """Width and height of an image, and whether it is grey, from the header of its file."""
    return _opened(path, lambda image: (image.size, image.mode in _GREY_MODES))


def _opened(path: Path, use: Callable[[Image.Image], Result]) -> Result:
    """What ``use`` gives for an image.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):  # Pillow would clip them to white
                raise ValueError("more than 8 bits per channel; save it with 8")
            return use(image)
    except MemoryError as error:
        raise UserError(f"not enough memory to decode {path}") from error
    except Exception as error:  # a damaged file makes Pillow raise OSError, SyntaxError, ValueError, struct.error, ...
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise UserError(f"cannot read image {path}: {reason or type(error).__name__}") from error
