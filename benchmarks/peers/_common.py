"""What all peers share: the network with its first weights, the images, and the numbers of the optimiser."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.steps import build_method
from datamodules.base import ImageSet
from layers.convolution import Conv2d
from layers.pooling import AvgPool2d
from methods._local import LocalMethod

LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4
SGD: dict[str, Any] = {"lr": LEARNING_RATE, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY}
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
NUM_CLASSES = 10


def network(model: str) -> tuple[list[nn.Module], list[nn.Module]]:
    """The blocks of ``model``, and the head of each (dgl's default): equal weights every time, torch's own layers."""
    method = build_method("dgl", {}, model)
    assert isinstance(method, LocalMethod)
    method.to(memory_format=torch.contiguous_format)  # as torch builds them
    for layer in method.modules():
        if type(layer) in (Conv2d, AvgPool2d):
            layer.__class__ = type(layer).__base__  # type: ignore[assignment]
    return list(method.backbone.blocks), [method.head(index) for index in range(method.backbone.num_blocks)]


def images(count: int) -> ImageSet:
    """``count`` images of noise over a pattern that belongs to the class, so that there is something to learn."""
    generator = torch.Generator().manual_seed(1)
    patterns = torch.randn(NUM_CLASSES, 32, 32, 3, generator=generator)
    labels_P = torch.randint(NUM_CLASSES, (count,), generator=generator)
    noise_PHWC = torch.randn(count, 32, 32, 3, generator=generator)
    pixels_PHWC = (128 + 30 * patterns[labels_P] + 50 * noise_PHWC).clamp(0, 255).to(torch.uint8)
    return ImageSet(pixels_PHWC, labels_P)
