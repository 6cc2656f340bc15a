"""Images one at a time behind torchvision's transforms, as most people load them."""

from __future__ import annotations

import numpy
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.peers import Setting
from benchmarks.peers._common import MEAN, STD, images
from datamodules.base import ImageSet

NUM_WORKERS = 2


class Pictures(Dataset[tuple[Tensor, int]]):
    """A data set as torchvision has them."""

    def __init__(self, chosen: ImageSet, *, augment: bool = True) -> None:
        self.pixels_PHWC, self.labels = chosen.images_PHWC.numpy(), chosen.labels_P.tolist()
        moves = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()] if augment else []
        self.transform = transforms.Compose([*moves, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """A picture and its label."""
        picture = Image.fromarray(numpy.asarray(self.pixels_PHWC[index]))
        return self.transform(picture), self.labels[index]


def loader(
    pictures: Pictures, batch_size: int, *, shuffle: bool = True, num_workers: int = NUM_WORKERS
) -> DataLoader[tuple[Tensor, int]]:
    """An epoch of pictures; a last partial batch is left out where they are shuffled.

    The workers stay, and rest between epochs, of which none is begun ahead.
    """
    return DataLoader(
        pictures,
        batch_size,
        shuffle=shuffle,
        drop_last=shuffle,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        multiprocessing_context="fork" if num_workers else None,  # the default in a process that was spawned is slower
    )


def turn(setting: Setting, num_workers: int = NUM_WORKERS) -> DataLoader[tuple[Tensor, int]]:
    """The pictures of a turn."""
    return loader(Pictures(images(setting.num_images)), setting.batch_size, num_workers=num_workers)
