"""Settings of ``--method es``."""

from typing import Literal

from pydantic import field_validator

from sections.fields import POSITIVE, Above, setting
from sections.labels import Smoothing
from sections.rule import MethodArgs, recipe


class EsArgs(MethodArgs):
    """Evolution strategies (es)."""

    GROUPS = (Smoothing,)
    RECIPE = recipe(learning_rate=0.0001)

    population: int = setting(
        16, "networks with moved weights that every batch is tried on, in pairs that are moved to opposite sides", ge=2
    )
    noise: Literal["normal", "low_rank", "coordinate"] = setting(
        "normal", "how a pair is moved: all weights at random, by a random matrix of low rank, or a single weight",
        on=("normal", "low_rank", "coordinate"),
        excludes={"compile": ((True,), "weights are given to the layers from outside")},
    )  # fmt: skip
    noise_scale: float = setting(0.01, "sigma: how far, the standard deviation of a weight's move", gt=0, le=1)
    noise_rank: int = setting(1, "rank of those matrices", ge=1, needs={"noise": ("low_rank",)})
    subspace: int = setting(
        0, "last estimates in whose span a share of the noise is drawn (0: none)", ge=0, le=1000,
        needs={"noise": ("normal",)},
        excludes={
            "num_replicas": (Above(1), "each would have estimates of its own, and none the saved ones"),
            "accumulate": (Above(1), "each part of a batch would leave an estimate of its own"),
        },
    )  # fmt: skip
    subspace_share: float = setting(
        0.5, "that share of its variance (1: nothing is drawn outside the span)", gt=0, le=1,
        needs={"subspace": POSITIVE},
    )  # fmt: skip

    @field_validator("population")
    @classmethod
    def _pairs(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"needs pairs, so an even number, as {value - 1} or {value + 1}")
        return value
