"""The images of the study: ``python experiments/studies/2026-11-27_families/data.py FOLDER`` writes three files.

``digits_held_out.npz`` and ``shapes_held_out.npz`` serve the search for learning rates: training images only, and what
a run on them calls test are training images that were held out. ``shapes.npz`` has generated images of the size of
Fashion-MNIST: 60,000 for training and 10,000 for the test, 28x28, grey, ten classes. A class is four smooth random
patterns; an image is one of them, shifted by up to three pixels, with a contrast of its own, under noise.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[3]))

from datamodules.digits import read

NUM_CLASSES, SIZE, PATTERNS, SHIFT = 10, 28, 4, 3
NUM_TRAINED, NUM_TEST, HELD_OUT = 60_000, 10_000, 5  # a fifth is held out
CONTRAST, NOISE = (0.4, 1.0), 0.9  # of the patterns' deviation


def shapes(count: int, patterns_NPHW: torch.Tensor, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
    """``count`` images (count, 28, 28) of uint8 and their labels."""
    label_B = torch.arange(count) % NUM_CLASSES
    own_BHW = patterns_NPHW[label_B, torch.randint(PATTERNS, (count,), generator=generator)]
    shift_B2 = torch.randint(2 * SHIFT + 1, (count, 2), generator=generator)
    place = torch.arange(SIZE)
    rows_BH, columns_BW = ((place + shift_B2[:, axis, None]) for axis in range(2))
    seen_BHW = own_BHW[torch.arange(count)[:, None, None], rows_BH[:, :, None], columns_BW[:, None]]
    low, high = CONTRAST
    contrast_B11 = low + (high - low) * torch.rand(count, 1, 1, generator=generator)
    noisy_BHW = contrast_B11 * seen_BHW + NOISE * torch.randn(seen_BHW.shape, generator=generator)
    return (128 + 48 * noisy_BHW).clamp(0, 255).to(torch.uint8).numpy(), label_B.numpy()


def write(path: Path, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> None:
    """A file as ``--dataset arrays`` takes it."""
    np.savez(path, allow_pickle=False, x_train=train[0], y_train=train[1], x_test=test[0], y_test=test[1])


def held_out(images: np.ndarray, labels: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Training images in two parts."""
    order = np.random.default_rng(0).permutation(len(images))
    count = len(images) // HELD_OUT
    return tuple((images[some], labels[some]) for some in (order[count:], order[:count]))


def main(folder: Path) -> None:
    """Write all three."""
    folder.mkdir(parents=True, exist_ok=True)
    digits = read().train
    write(folder / "digits_held_out.npz", *held_out(np.asarray(digits.images_PHWC), digits.labels_P.numpy()))
    generator = torch.Generator().manual_seed(0)
    side = SIZE + 2 * SHIFT
    coarse_MPhw = torch.randn(NUM_CLASSES, PATTERNS, 6, 6, generator=generator)
    patterns = F.interpolate(coarse_MPhw, size=(side, side), mode="bicubic")
    train, test = (shapes(count, patterns, generator) for count in (NUM_TRAINED, NUM_TEST))
    write(folder / "shapes.npz", train, test)
    write(folder / "shapes_held_out.npz", *held_out(*(part[:10_000] for part in train)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
