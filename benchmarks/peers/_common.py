"""What all peers share: the network with its first weights, the images, and the numbers of the optimiser."""

from __future__ import annotations

from typing import Any

import numpy
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.peers import Setting
from benchmarks.steps import build_method
from datamodules.base import ImageSet
from methods._local import LocalMethod

LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4
SGD: dict[str, Any] = {"lr": LEARNING_RATE, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY}
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
NUM_CLASSES, NUM_WORKERS = 10, 2


def network(model: str) -> tuple[list[nn.Module], list[nn.Module]]:
    """The blocks of ``model``, and the head of each (dgl's default), always with the same weights."""
    method = build_method("dgl", {}, model)
    assert isinstance(method, LocalMethod)
    method.to(memory_format=torch.contiguous_format)  # as torch builds them
    return list(method.backbone.blocks), [method.head(index) for index in range(method.backbone.num_blocks)]


def images(count: int) -> ImageSet:
    """``count`` images of noise over a pattern that belongs to the class, so that there is something to learn."""
    generator = torch.Generator().manual_seed(1)
    patterns = torch.randn(NUM_CLASSES, 32, 32, 3, generator=generator)
    labels_P = torch.randint(NUM_CLASSES, (count,), generator=generator)
    noise_PHWC = torch.randn(count, 32, 32, 3, generator=generator)
    pixels_PHWC = (128 + 30 * patterns[labels_P] + 50 * noise_PHWC).clamp(0, 255).to(torch.uint8)
    return ImageSet(pixels_PHWC, labels_P)


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images behind torchvision's transforms, one picture at a time, as its data sets do it."""

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
