"""What all generated data sets have in common."""

from __future__ import annotations

from consts import DATASETS
from sections.fields import Section, setting

GENERATED = tuple(name for name, facts in DATASETS.items() if facts.generated)
NEEDED = {"dataset": GENERATED}
MOST_BYTES = 2**30  # of all images, which are in memory


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

    def num_values(self) -> int:
        """Numbers in an image: pixels times channels; every data set says it."""
        raise NotImplementedError

    def shortage(self, sizes: Sizes) -> str | None:
        """Why there cannot be so many images; None where there can."""
        total, values = sizes.num_train_images + sizes.num_test_images, self.num_values()
        asked = f"--num_train_images {sizes.num_train_images} and --num_test_images {sizes.num_test_images}"
        if total > self.num_inputs():
            return f"{asked}: with these settings there are {self.num_inputs()} different images"
        if total * values > MOST_BYTES:
            return f"{asked}: with {values} bytes each, as these settings have it, there can be {MOST_BYTES // values}"
        return None
