"""What all peers share: the network with its first weights, the images, and the numbers of the optimiser."""

from __future__ import annotations

from typing import Any

import numpy
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.engine import CPU, MEAN, SPEC, STD, as_local, build_method, random_images, settings
from benchmarks.peers import Setting
from datamodules.base import ImageSet
from datamodules.feed import Feed
from layers.convolution import Conv2d
from layers.pooling import AvgPool2d

LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4
SGD: dict[str, Any] = {"lr": LEARNING_RATE, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY}
NUM_CHECKED, NUM_WORKERS = 20, 2


def network(model: str) -> tuple[list[nn.Module], list[nn.Module]]:
    """The blocks of ``model``, and the head of each (dgl's default): equal weights every time, torch's own layers."""
    method = as_local(build_method(settings("dgl", model, 2)))
    method.to(memory_format=torch.contiguous_format)  # as torch builds them
    for layer in method.modules():
        if type(layer) in (Conv2d, AvgPool2d):
            layer.__class__ = type(layer).__base__  # type: ignore[assignment]
    return list(method.backbone.blocks), [method.head(index) for index in range(method.backbone.num_blocks)]


def check_feed(setting: Setting) -> Feed:
    """The batches on which the losses of all peers are compared, in a fixed order and not augmented."""
    return Feed(random_images(setting.batch_size * NUM_CHECKED), SPEC, setting.batch_size, CPU)


def check_batches(setting: Setting) -> list[tuple[Tensor, Tensor]]:
    """The same batches as normalised (B, 3, 32, 32) images and (B,) labels."""
    batches = [check_feed(setting).batch(0, step) for step in range(NUM_CHECKED)]
    return [(batch.x_BCHW.contiguous(), batch.y_B) for batch in batches]


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images one at a time behind torchvision's transforms, as most people load them."""

    def __init__(self, chosen: ImageSet, *, augment: bool = True) -> None:
        self.pixels_PHWC, self.labels = chosen.images_PHWC.numpy(), chosen.labels_P.tolist()
        moves = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()] if augment else []
        self.transform = transforms.Compose([*moves, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """An image and its label."""
        picture = Image.fromarray(numpy.asarray(self.pixels_PHWC[index]))
        return self.transform(picture), self.labels[index]


def loader(
    pictures: Pictures, batch_size: int, *, shuffle: bool = True, num_workers: int = NUM_WORKERS
) -> DataLoader[tuple[Tensor, int]]:
    """An epoch of images; a last partial batch is left out where they are shuffled.

    The workers stay from one epoch to the next, and load nothing in between.
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
    """The images of a turn."""
    return loader(Pictures(random_images(setting.num_images)), setting.batch_size, num_workers=num_workers)
