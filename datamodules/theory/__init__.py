"""Data sets with a theory: generated, with known distributions, without files.

A file here has the name of a data set, and a function ``problem`` that makes a `Problem` of its settings.
"""

from __future__ import annotations

from importlib import import_module

import torch

from datamodules.base import ImageSet, Source
from datamodules.theory._draw import Problem, distinct
from schemas import DataArgs
from sections.datasets._base import Generated, Sizes


def generate(args: DataArgs, settings: Generated) -> Source:
    """Draw a generated data set; the same settings give the same images on every machine.

    All images are different, so that no test image was trained on. Apart from that they are independent draws from the
    distribution that the file describes.

    Raises:
        UsageError: the distribution hardly ever gives that many different images.
    """
    sizes = args.group(Sizes)
    generator = torch.Generator().manual_seed(sizes.data_seed)
    problem: Problem = import_module(f"datamodules.theory.{args.dataset}").problem(settings, generator)
    images = ImageSet(*distinct(problem.draw, sizes.num_train_images + sizes.num_test_images, args.dataset))
    train, test = torch.arange(images.num_images).split([sizes.num_train_images, sizes.num_test_images])
    return Source(images.select(train), images.select(test), problem.class_names)
