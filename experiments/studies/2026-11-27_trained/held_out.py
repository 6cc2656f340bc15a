"""The data of the search for recipes: training images of CIFAR-10 only, some of them held out.

``python experiments/studies/2026-11-27_trained/held_out.py TREE FILE.npz`` draws 10,000 training images and 2,000
others to compare with, classes balanced, from ``TREE/train``. The file has no image of the test set, so nothing that
was chosen with it has seen one; what a run on it calls test are those 2,000.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

NUM_TRAINED, NUM_HELD_OUT, SEED = 1000, 200, 0  # of each class


def draw(tree: Path, file: Path) -> None:
    """Read the images and write them as ``--dataset arrays`` takes them."""
    generator = np.random.default_rng(SEED)
    parts: dict[str, list[np.ndarray]] = {"x_train": [], "y_train": [], "x_test": [], "y_test": []}
    classes = sorted(path.name for path in (tree / "train").iterdir() if path.is_dir())
    for label, name in enumerate(classes):
        paths = sorted((tree / "train" / name).iterdir())
        chosen = generator.permutation(len(paths))[: NUM_TRAINED + NUM_HELD_OUT]
        images = np.stack([np.asarray(Image.open(paths[index]).convert("RGB")) for index in chosen])
        for split, some in (("train", images[:NUM_TRAINED]), ("test", images[NUM_TRAINED:])):
            parts[f"x_{split}"].append(some)
            parts[f"y_{split}"].append(np.full(len(some), label))
    arrays = {name: np.concatenate(some) for name, some in parts.items()}
    np.savez(file, allow_pickle=False, class_names=np.array(classes), **arrays)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
