"""The random numbers of the augmentations: drawn for a whole epoch at once, from the run's seed and the epoch alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from consts import CROP_PADDING
from schemas import DataArgs

# torchvision's defaults for RandomHorizontalFlip and RandomErasing (Zhong et al., arXiv 1708.04896).
FLIP_PROBABILITY = 0.5
ERASE_PROBABILITY = 0.5
ERASE_AREA = (0.02, 0.33)  # share of the image
ERASE_RATIO = (0.3, 3.3)  # height / width
ERASE_TRIES = 10
RESIZED_AREA = (0.75, 1.0)  # share of the image


class Draws(NamedTuple):
    """What is done to the images of an epoch, by position in its order.

    Attributes:
        corner_P2: top and left of the crop, in pixels; in the padded image where there is padding.
        side_P: side of the square that is scaled to the image's size, or None where nothing is scaled.
        flip_P: whether the crop is mirrored.
        erase_P4: top, left, height and width of the rectangle set to 0, or None; of height 0 where nothing is erased.
    """

    corner_P2: Tensor
    side_P: Tensor | None
    flip_P: Tensor
    erase_P4: Tensor | None

    def each(self, function: Callable[[Tensor], Tensor]) -> Draws:
        """Apply ``function`` to every tensor."""
        return Draws(*(None if tensor is None else function(tensor) for tensor in self))  # type: ignore[arg-type]


class Drawn(NamedTuple):
    """All that is random in an epoch: the order of the images (P), what is done to them, and to their second views."""

    order_P: Tensor
    draws: Draws
    second: Draws | None = None

    def each(self, function: Callable[[Tensor], Tensor]) -> Drawn:
        """Apply ``function`` to every tensor."""
        second = None if self.second is None else self.second.each(function)
        return Drawn(function(self.order_P), self.draws.each(function), second)

    def tensors(self) -> list[Tensor]:
        """The tensors, always in the same order."""
        return [self.order_P, *(tensor for tensor in (*self.draws, *(self.second or ())) if tensor is not None)]


def generator(seed: int, epoch: int, purpose: str) -> torch.Generator:
    """A CPU generator for one purpose in one epoch.

    Seed and epoch are mixed by a hash, so that (0, 1) and (1, 0) differ. One generator per purpose: switching an
    augmentation on changes neither the order nor the other augmentations.
    """
    digest = hashlib.blake2b(f"{purpose} {seed} {epoch}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)  # the seed must fit a signed integer


def draw(args: DataArgs, seed: int, epoch: int, num_images: int, height: int, width: int, view: str = "") -> Draws:
    """Draw for ``num_images`` images of ``height`` x ``width`` pixels what ``args`` ask for.

    Another word for ``view`` gives other numbers, independent of these.
    """

    def source(purpose: str) -> torch.Generator:
        return generator(seed, epoch, view + purpose)

    corner_P2, side_P = torch.zeros(num_images, 2, dtype=torch.int64), None
    if args.random_crop:
        corner_P2 = torch.randint(2 * CROP_PADDING + 1, (num_images, 2), generator=source("crop"))
    if args.random_resized_crop:
        corner_P2, side_P = _squares(source("resized crop"), num_images, height, width)
    flip_P = torch.zeros(num_images, dtype=torch.bool)
    if args.random_horizontal_flip:
        flip_P = torch.rand(num_images, generator=source("flip")) < FLIP_PROBABILITY
    erase_P4 = None
    if args.random_erasing:
        erase_P4 = _rectangles(source("erase"), num_images, height, width)
    return Draws(corner_P2, side_P, flip_P, erase_P4)


def _squares(source: torch.Generator, num_images: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Corners and sides as torchvision's RandomResizedCrop draws them at ratio 1.

    In an image that is not square the side ends at the shorter edge.
    """
    low, high = RESIZED_AREA
    area_P = height * width * (low + (high - low) * torch.rand(num_images, generator=source))
    side_P = area_P.sqrt().round().long().clamp(max=min(height, width))
    room_P2 = torch.tensor([height, width]) - side_P[:, None] + 1
    return (torch.rand(num_images, 2, generator=source) * room_P2).long(), side_P


def _rectangles(source: torch.Generator, num_images: int, height: int, width: int) -> Tensor:
    """Rectangles as torchvision's RandomErasing draws them: the first of ten tries that is smaller than the image."""
    low, high = ERASE_AREA
    shape = (num_images, ERASE_TRIES)
    area_PT = height * width * (low + (high - low) * torch.rand(shape, generator=source))
    low, high = map(math.log, ERASE_RATIO)
    ratio_PT = (low + (high - low) * torch.rand(shape, generator=source)).exp()
    size_PT2 = torch.stack(((area_PT * ratio_PT).sqrt(), (area_PT / ratio_PT).sqrt()), -1).round().long()
    image_2 = torch.tensor([height, width])
    valid_PT = (size_PT2 < image_2).all(-1)
    first_P = valid_PT.int().argmax(1)  # of several largest, argmax gives the first
    size_P2 = size_PT2[torch.arange(num_images), first_P]
    chosen_P = (torch.rand(num_images, generator=source) < ERASE_PROBABILITY) & valid_PT.any(1)
    size_P2 = size_P2 * chosen_P[:, None]
    corner_P2 = (torch.rand(num_images, 2, generator=source) * (image_2 - size_P2 + 1)).long()
    return torch.cat((corner_P2, size_P2), 1)
