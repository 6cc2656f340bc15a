"""Images in a file, read when they are asked for, so that a data set can be larger than memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from utils import UserError


class Stored:
    """uint8 images (PHWC) that lie one behind the other in a file.

    They are read with ``pread`` and not mapped into memory: a map of the whole file counts against ``ulimit -v``, and
    a disk that fails under a map ends the process with SIGBUS, where a read raises an error. What was read lately
    stays in the system's page cache either way, as long as there is memory.

    Args:
        stream: the file, open for reading; it may be renamed or deleted meanwhile.
        path: its name, for messages.
        offset_bytes: where the first image begins.
        shape: number of images in the file, height, width, channels.
        index_P: positions (int64) of those that belong to this set, in its order; None for all as they come.
    """

    def __init__(
        self,
        stream: BinaryIO,
        path: Path,
        offset_bytes: int,
        shape: tuple[int, int, int, int],
        index_P: Tensor | None = None,
    ) -> None:
        self._stream, self.path, self._offset_bytes, self._file_shape = stream, path, offset_bytes, shape
        self._index_P = torch.arange(shape[0]) if index_P is None else index_P
        self.shape = torch.Size((len(self._index_P), *shape[1:]))

    def select(self, index_P: Tensor) -> Stored:
        """The images at the positions ``index_P`` (int64), in that order; nothing is read."""
        return Stored(self._stream, self.path, self._offset_bytes, self._file_shape, self._index_P[index_P])

    def split(self, sizes: Sequence[int]) -> tuple[Stored, ...]:
        """Neighbouring parts with so many images each, as `torch.Tensor.split`; nothing is read."""
        return tuple(self.select(index_P) for index_P in torch.arange(len(self._index_P)).split(list(sizes)))

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """Read some images into memory: HWC for a number, otherwise BHWC."""
        place = self._index_P[index]
        out_BHWC = torch.empty((place.numel(), *self.shape[1:]), dtype=torch.uint8)
        self._read(place.flatten().tolist(), out_BHWC)
        return out_BHWC.view(*place.shape, *self.shape[1:])

    def read(self, index_B: Tensor, out_BHWC: Tensor) -> None:
        """Read the images at the positions ``index_B`` (int64, on the CPU) into ``out_BHWC`` (uint8, contiguous).

        Raises:
            UserError: the file cannot be read, or has become shorter.
        """
        self._read(self._index_P[index_B].tolist(), out_BHWC)

    def _read(self, places: list[int], out_BHWC: Tensor) -> None:
        if not places:
            return
        image_bytes = self.shape[1:].numel()
        target, done = out_BHWC.numpy().data.cast("B"), 0
        for _, run in groupby(enumerate(places), lambda pair: pair[1] - pair[0]):  # neighbours are one read
            first, *others = (place for _, place in run)
            size = (1 + len(others)) * image_bytes
            fill(self._stream, target[done : done + size], self._offset_bytes + first * image_bytes, self.path)
            done += size


def fill(stream: BinaryIO, target: memoryview, offset_bytes: int, path: Path) -> None:
    """Fill ``target`` with the bytes of a file from ``offset_bytes`` on.

    Raises:
        UserError: they cannot be read, or the file ends before.
    """
    while target:
        try:
            count = os.preadv(stream.fileno(), [target], offset_bytes)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        if count == 0:
            raise UserError(f"cannot read {path}: it has become shorter")
        target, offset_bytes = target[count:], offset_bytes + count
