"""Settings of the data; those of generated data sets are groups of their own, found by file name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from consts import DATASETS
from sections.datasets._base import GENERATED, Generated, Sizes
from sections.fields import NO_NUL, TRUE_WORDS, Composite, Other, setting
from sections.parts import found

CURRICULUM = {"curriculum": ("easy_first", "hard_first")}
_ON_DISK = tuple(name for name, facts in DATASETS.items() if facts.on_disk)
_DOWNLOADABLE = tuple(name for name, facts in DATASETS.items() if facts.downloadable)
_WHOLE: Any = {"dataset": (GENERATED, "the label of a generated image follows from all of its pixels")}
_GENERATORS = found("sections.datasets", Generated)


class DataArgs(Composite):
    """Data."""

    GROUPS = (Sizes, *_GENERATORS.values())

    dataset: Literal[tuple(DATASETS)] = setting("cifar10", "data set")  # type: ignore[valid-type]
    data_dir: str = setting(
        "data",
        "folder of the data sets; the tree itself with --dataset folder, the file with --dataset arrays",
        min_length=1,
        pattern=NO_NUL,
        needs={"dataset": _ON_DISK},
    )
    download: bool = setting(False, "fetch a missing data set with torchvision", needs={"dataset": _DOWNLOADABLE})
    image_size: int | None = setting(
        None, "scale the shorter side of every image to this, and take the middle; for images that differ in size",
        shown="as they are", unit="pixels", ge=1, needs={"dataset": ("folder",)},
    )  # fmt: skip
    train_size: int | None = setting(
        None, "use only this many training images, class-balanced", shown="all", unit="images", ge=2
    )
    val_size: int = setting(0, "hold out this many training images to choose the best epoch", unit="images", ge=0)
    random_labels: float = setting(
        0.0,
        "shuffle the labels of this share of the training images among themselves, to measure memorisation",
        ge=0,
        le=1,
    )
    curriculum: Literal["none", "easy_first", "hard_first"] = setting(
        "none",
        "begin with the training images that are easy (or hard) for the network of another run, then add the rest",
        on=Other("none"),
        requires={"curriculum_teacher": (Other(None), "the folder of a run whose network says which images are easy")},
    )
    curriculum_teacher: Annotated[str, Field(min_length=1, pattern=NO_NUL)] | None = setting(
        None, "folder of that run, of the same data set; its best checkpoint ranks the images", needs=CURRICULUM
    )
    curriculum_start: float = setting(
        0.2, "share of the images in the first epoch; it grows linearly", gt=0, lt=1, needs=CURRICULUM
    )
    curriculum_until: float = setting(
        0.5, "when all of them are there", unit="fraction of the run", gt=0, le=1, needs=CURRICULUM
    )
    random_crop: bool | None = setting(
        None, "pad by 4 zeros and crop at random", shown="as suits the data set", excludes=_WHOLE
    )
    random_horizontal_flip: bool | None = setting(
        None, "mirror every other image", shown="as suits the data set", excludes=_WHOLE
    )
    random_erasing: bool = setting(False, "black out a random rectangle in every other image", excludes=_WHOLE)
    random_resized_crop: bool = setting(
        False, "crop a square of 75 to 100 % of the area and scale it back",
        excludes={"random_crop": ((True,), "give --no_random_crop")} | _WHOLE,
    )  # fmt: skip
    normalization: Literal["plus_minus_one", "unit_gaussian", "none"] = setting(
        "plus_minus_one", "scaling of the pixels"
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_data_set(cls, values: dict[str, Any]) -> dict[str, Any]:
        facts = DATASETS.get(str(values.get("dataset", "cifar10")))  # str: a list from a file has no hash
        if facts is None:
            return values
        crop = facts.random_crop and str(values.get("random_resized_crop", "")).lower() not in TRUE_WORDS
        own = {"random_crop": crop, "random_horizontal_flip": facts.random_horizontal_flip}
        return own | {name: value for name, value in values.items() if value is not None}

    @model_validator(mode="after")
    def _enough_images(self) -> DataArgs:
        generated = self.generated
        if generated is not None and (problem := generated.shortage(self.group(Sizes))):
            raise ValueError(f"{problem} (--dataset {self.dataset})")
        return self

    @property
    def generated(self) -> Generated | None:
        """The settings of the data set, if it is a generated one."""
        kind = _GENERATORS.get(self.dataset)
        return None if kind is None else self.group(kind)
