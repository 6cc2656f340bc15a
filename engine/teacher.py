"""Difficulty of the training images for ``--curriculum``: the loss of a trained network on each of them."""

from __future__ import annotations

import torch
from loguru import logger
from torch import Tensor
from torch.nn import functional

from datamodules.base import ImageSet
from engine.trained import Trained


def losses(teacher: Trained, images: ImageSet) -> Tensor:
    """Cross-entropy of the teacher's network on every image, (P,) in float32 on the CPU.

    Images are not augmented and are normalised as for the teacher's training; the network is in evaluation mode and
    computes in float32.
    """
    feed = teacher.feed(images)
    teacher.method.eval()
    with torch.inference_mode():
        batches = (feed.batch(0, step) for step in range(feed.num_steps))
        parts = [
            functional.cross_entropy(teacher.method(batch.x_BCHW), batch.y_B, reduction="none") for batch in batches
        ]
    return torch.cat(parts).cpu()


def rank(teacher: Trained, images: ImageSet, curriculum: str) -> Tensor:
    """Indices of the images in curriculum order, (P,) int64: by rising loss, or by falling loss for ``hard_first``."""
    easy_first_P = losses(teacher, images).argsort(stable=True)
    logger.info(f"Curriculum: {curriculum}, {images.num_images} images ranked by {teacher.folder.path}")
    return easy_first_P.flip(0) if curriculum == "hard_first" else easy_first_P
