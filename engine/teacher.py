"""``--curriculum``: a run that has ended says how hard every training image is."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from datamodules.base import ImageSet
from engine.trained import Trained


def losses(teacher: Trained, images: ImageSet) -> Tensor:
    """Cross-entropy of the teacher's network on every image, (P,) in float32 on the CPU.

    The images are as they are, scaled as the teacher's were; the network is in evaluation mode and computes in float32.
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
    """Positions of the images, (P,) int64, from the easiest to the hardest; with ``hard_first`` the other way round."""
    easy_first_P = losses(teacher, images).argsort(stable=True)
    return easy_first_P.flip(0) if curriculum == "hard_first" else easy_first_P
