"""Decoded images of a tree, in one file of the user's cache folder.

The file is a ``.npy`` array (PHWC), behind it the CRC-32 of every image, which begins with that of the header. It is
written under another name, flushed to the disk, and renamed, so that a reader finds a whole one or none.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from consts import PROJECT
from datamodules.parallel import by_chunks
from datamodules.stored import Stored, fill
from utils import atomic_write

Pixels = NDArray[np.uint8]
Shape = tuple[int, int, int, int]
Put = Callable[[int, Pixels], None]  # keeps an image (HWC) at its place; threads may call it

VERSION = 2  # part of the key; to be raised when the content or the decoding changes
_CHECK = np.dtype("<u4")
_OURS = re.compile(r"[0-9a-f]{64}\.npy|\.[0-9a-f]{64}\.npy\.\d+\.tmp")


def home() -> Path:
    """Folder of the caches of all trees, beside the environment that ``make setup`` keeps."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache).absolute() / PROJECT / "images"


def cache_path(root: Path, image_size: int | None, key: str) -> Path:
    """The file for the tree ``root`` at an image size, in the state that ``key`` (64 hexadecimal digits) stands for.

    All states of a tree at one size share a folder.
    """
    root = root.resolve()
    digest = hashlib.sha256(os.fsencode(f"{root}\0{image_size}")).hexdigest()[:16]
    return home() / f"{root.name[:40]}-{digest}" / f"{key}.npy"


def load(path: Path, num_images: int, *, progress: bool = False) -> Stored | None:
    """The images of a file, or None where there is no whole one of this number.

    Every byte is read once and compared with the checksums.
    """
    try:
        stream = path.open("rb", buffering=0)
        header, shape = _read_header(stream)
        size = _size(header, shape)
        if shape[0] != num_images or os.fstat(stream.fileno()).st_size != size:
            return None
        checks = np.empty(num_images, _CHECK)
        fill(stream, checks.data.cast("B"), size - checks.nbytes, path)
        images, start = Stored(stream, path, len(header), shape), zlib.crc32(header)

        def is_whole(chunk: range) -> bool:
            pixels_BHWC = images[chunk.start : chunk.stop].numpy()
            return all(
                zlib.crc32(pixels, start) == checks[index] for index, pixels in zip(chunk, pixels_BHWC, strict=True)
            )

        return images if all(by_chunks(is_whole, num_images, "Checking the image cache", progress=progress)) else None
    except Exception:  # damage can surface as almost any error, and the images themselves are still there
        return None


def write(path: Path, shape: Shape, produce: Callable[[Put], None]) -> Stored:
    """Write a file of that shape, and open it; ``produce`` hands over every image, in any order.

    Raises:
        OSError: it cannot be written; the room is taken at once, so that a full disk shows before the work.
    """
    header = _header(shape)
    image_bytes, start, checks = math.prod(shape[1:]), zlib.crc32(header), np.zeros(shape[0], _CHECK)
    with atomic_write(path) as stream:
        number, size = stream.fileno(), _size(header, shape)
        if hasattr(os, "posix_fallocate"):  # macOS has none
            os.posix_fallocate(number, 0, size)

        def put(index: int, pixels_HWC: Pixels) -> None:
            content = np.ascontiguousarray(pixels_HWC)
            checks[index] = zlib.crc32(content.data, start)
            _write(number, content, len(header) + index * image_bytes)

        produce(put)
        _write(number, checks, size - checks.nbytes)
        _write(number, np.frombuffer(header, np.uint8), 0)
        reader = open(stream.name, "rb", buffering=0)  # noqa: SIM115  # now: another process may replace the file
    return Stored(reader, path, len(header), shape)


def forget_others(path: Path) -> None:
    """Remove what earlier states of the tree, and processes that were killed, have left beside ``path``."""
    for name in os.listdir(path.parent):
        if _OURS.fullmatch(name) and name != path.name:
            with contextlib.suppress(OSError):
                (path.parent / name).unlink()


def _header(shape: Shape) -> bytes:
    stream = BytesIO()
    npy.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _read_header(stream: BinaryIO) -> tuple[bytes, Shape]:
    """The header as it was written, and the shape that it names.

    Raises:
        ValueError: it is not one of ours.
    """
    npy.read_magic(stream)
    shape, _, _ = npy.read_array_header_1_0(stream)
    end = stream.tell()
    stream.seek(0)
    header = stream.read(end)
    if len(shape) != 4 or header != _header(shape):
        raise ValueError("another kind of array")
    return header, shape


def _size(header: bytes, shape: Shape) -> int:
    return len(header) + shape[0] * (math.prod(shape[1:]) + _CHECK.itemsize)


def _write(number: int, content: np.ndarray, offset_bytes: int) -> None:
    """Write all of ``content`` to the file descriptor ``number``; a disk that is almost full may take only a part."""
    left = content.data.cast("B")
    while left:
        count = os.pwrite(number, left, offset_bytes)
        left, offset_bytes = left[count:], offset_bytes + count
