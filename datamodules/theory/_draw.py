"""What a generator is, and how different images are drawn from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from utils import UsageError

ROUNDS = 64  # after which a set of N equally likely images lacks one with a probability below N e^-64
AT_ONCE = 2**16  # images, so that drawing takes little more memory than what is drawn
ON = 255


class Problem(NamedTuple):
    """A distribution of labelled images.

    Attributes:
        class_names: one for each label.
        draw: from a number P, so many independent images (PHWC, uint8) and labels (P, int64); the label is a function
            of the image.
    """

    class_names: tuple[str, ...]
    draw: Callable[[int], tuple[Tensor, Tensor]]


def distinct(draw: Callable[[int], tuple[Tensor, Tensor]], count: int, name: str) -> tuple[Tensor, Tensor]:
    """The first ``count`` different images that ``draw`` gives, and their labels; each pixel is black or not.

    Raises:
        UsageError: 64 times as many draws do not have so many different ones; ``name`` is that of the data set.
    """
    seen: set[bytes] = set()
    parts: list[tuple[Tensor, Tensor]] = []
    for _ in range(0, ROUNDS * count, size := min(count, AT_ONCE)):
        images_PHWC, labels_P = draw(size)
        new: list[int] = []
        for place, row in enumerate(np.packbits(images_PHWC.flatten(1).numpy() > 0, axis=1)):
            if (key := row.tobytes()) not in seen:
                seen.add(key)
                new.append(place)
        parts.append((images_PHWC[new], labels_P[new]))
        if len(seen) >= count:
            images_PHWC, labels_P = (torch.cat(part)[:count] for part in zip(*parts, strict=True))
            return images_PHWC, labels_P
    raise UsageError(
        f"--dataset {name}: {ROUNDS * count} draws gave {len(seen)} different images, and {count} are needed "
        "(--num_train_images, --num_test_images): ask for fewer, or for a distribution with more likely ones"
    )


def of_bits(bits_PD: Tensor) -> Tensor:
    """Images of one row, black where a bit is 0 and white where it is 1: (P, 1, D, 1), uint8."""
    return (bits_PD.to(torch.uint8) * ON)[:, None, :, None]
