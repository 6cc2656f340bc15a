"""What all generated data sets have in common."""

from __future__ import annotations

from consts import DATASETS
from sections.fields import Section, setting

GENERATED = tuple(name for name, facts in DATASETS.items() if facts.generated)
NEEDED = {"dataset": GENERATED}


class Sizes(Section):
    """Generated data."""

    num_train_images: int = setting(10_000, "training images to draw", unit="images", ge=2, le=10**6, needs=NEEDED)
    num_test_images: int = setting(
        2_000, "test images to draw, all different from the training images", unit="images", ge=1, le=10**6,
        needs=NEEDED,
    )  # fmt: skip
    data_seed: int = setting(
        0, "seed of the task (which bits, gates or rules) and of the images; --seed changes neither", ge=0, lt=2**31,
        needs=NEEDED,
    )  # fmt: skip


class Generated(Section):
    """Settings of one generated data set."""

    def num_inputs(self) -> int:
        """How many different images there are; every data set says it."""
        raise NotImplementedError
