"""Settings of ``--method tp``."""

from typing import Literal

from sections.fields import setting
from sections.inverses import ChainArgs


class TpArgs(ChainArgs):
    """Target propagation (tp)."""

    target_rule: Literal["dtp", "tp", "sdtp", "ao_sdtp"] = setting(
        "dtp", "how targets go down: corrected by a difference (dtp), or not (tp); without any gradient (sdtp); that "
        "with auxiliary outputs (ao_sdtp)",
    )  # fmt: skip
    auxiliary_outputs: int = setting(
        512, "fixed random features of the last block that the inverse of the output sees", ge=0,
        needs={"target_rule": ("ao_sdtp",)},
    )  # fmt: skip
