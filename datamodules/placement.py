"""Where the images of a split are kept while a run goes on, and batches that are read ahead from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.base import ImageSet
from datamodules.stored import Stored
from utils import human_bytes

_DEPTH = 2  # batches that wait; one more than a reader that is sometimes late needs
# Share of a GPU's memory that is left for weights, activations and the other splits. What training takes is not known
# before the first step.
_RESERVE = 0.25


class Placement(NamedTuple):
    """Whether images are kept on the device, and in words where they are and why; empty for what is usual."""

    is_resident: bool
    words: str


def place(images: ImageSet, device: torch.device, num_bytes: int) -> Placement:
    """Decide where images are kept that take ``num_bytes`` on ``device``, padding included.

    On a GPU they are on it where they fit into its free memory but for a reserve. On a CPU those that were read into
    memory stay there; those in a file are left to the system's page cache.
    """
    pixels, size = images.images_PHWC, human_bytes(images.num_bytes)
    if device.type != "cuda":
        if not isinstance(pixels, Stored):
            return Placement(True, "")
        return Placement(False, f"{size} in {pixels.path}, read a batch ahead")
    free, total = device_memory(device)
    if num_bytes <= free - _RESERVE * total:
        return Placement(True, f"{size} on the GPU")
    where = "in the image cache" if isinstance(pixels, Stored) else "in the machine's memory"
    room = f"{human_bytes(free)} are free on the GPU, and a reserve of {human_bytes(_RESERVE * total)} is for training"
    return Placement(False, f"{size} {where}, gathered on the host a batch ahead, since they do not fit: {room}")


def device_memory(device: torch.device) -> tuple[int, int]:
    """Bytes of a GPU that are free, what torch holds without using it included, and all of them."""
    free, total = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device), total


def resident(images: ImageSet, device: torch.device, padding: int) -> Tensor:
    """All images (PHWC) on ``device``, with ``padding`` zeros on each side."""
    pixels = images.images_PHWC
    if not padding and isinstance(pixels, Tensor):
        return pixels.to(device).contiguous()
    count, height, width, num_channels = pixels.shape
    shape = (count, height + 2 * padding, width + 2 * padding, num_channels)
    out_PHWC, done = torch.zeros(shape, dtype=torch.uint8, device=device), 0
    for chunk_PHWC in images.chunks():
        part = slice(done, done + len(chunk_PHWC))
        out_PHWC[part, padding : padding + height, padding : padding + width] = chunk_PHWC.to(device)
        done = part.stop
    return out_PHWC


Place = tuple[int, int]  # epoch and step


class Ahead:
    """Batches of pixels that a thread reads before they are asked for, as long as they are asked for in order.

    On a GPU they come from pinned memory, so that the copy need not be waited for. torch's allocator of pinned memory
    uses a block again only when the copies from it have ended.

    Args:
        images: where they are read.
        device: where they go.
        positions: which images (int64, on the CPU) a batch has; a thread calls it.
        following: the batch that will be asked for behind another one.
    """

    def __init__(
        self,
        images: ImageSet,
        device: torch.device,
        positions: Callable[[Place], Tensor],
        following: Callable[[Place], Place],
    ) -> None:
        self._images, self._device, self._positions, self._following = images, device, positions, following
        self._pool = ThreadPoolExecutor(1, "images")
        self._waiting: dict[Place, Future[Tensor]] = {}

    def batch(self, epoch: int, step: int) -> Tensor:
        """The pixels (BHWC) of a batch, on the device. One thread may ask at a time.

        Raises:
            UserError: they cannot be read.
        """
        asked = (epoch, step)
        wanted = [asked]
        for _ in range(_DEPTH):
            wanted.append(self._following(wanted[-1]))
        for place in self._waiting.keys() - set(wanted):
            self._waiting.pop(place).cancel()
        for place in wanted:
            if place not in self._waiting:
                self._waiting[place] = self._pool.submit(lambda place: self.read(self._positions(place)), place)
        return self._waiting.pop(asked).result().to(self._device, non_blocking=True)

    def read(self, index_B: Tensor) -> Tensor:
        """The pixels (BHWC) of the images ``index_B`` (int64, on the CPU), in memory of the host, now."""
        return self._images.read(index_B, pin=self._device.type == "cuda")
