"""Modules: neighbouring blocks that one loss trains together, and losses that also train the modules below.

Paper:
    Laskin et al. 2020, "Parallel Training of Deep Networks with Local Updates", arXiv 2012.03837 (chunked and
    overlapping training); Xiong, Ren, Urtasun 2020, "LoCo: Local Contrastive Representation Learning", arXiv 2008.01342
    (neighbouring units share a stage).

Signal:
    ``--num_modules K`` joins the blocks to K modules. Inside a module gradients flow as in back-propagation; heads,
    losses and metrics are those of modules, which are counted from 0 and take the blocks' place. K = 1 is
    back-propagation, because the last module has no head but the classifier; without the flag every block is a module.
    Frozen blocks stay single, and the modules share the others. ``--split`` makes the parts as equal as neighbours
    can be (least sum of squares; of equally good ones the earlier modules are the smaller): by number of blocks, by
    operations of convolutions, or by the bytes that autograd keeps for the backward pass.
    ``--overlap W`` lets the loss of a module also train the W modules below it, with every gradient cut at the input of
    the lowest: module i learns from ``l_i + l_{i+1} + ... + l_{i+W}``. W = 1 with single blocks is Laskin's overlapping
    form, with stages LoCo's; W = K - 1 is back-propagation of the sum of all losses.

Cost:
    One module's graph at a time, W + 1 of them with an overlap, which also sends W + 1 gradients through every module:
    about W backward passes more.

Deviations:
    1. LoCo runs a shared stage once for each of its units; here it runs once, and its output serves both. The
       gradients are the same, and statistics of BatchNorm move once a step.
    2. Our modules are blocks with their pools, and the classifier belongs to the last; theirs may end anywhere.

Reference numbers:
    None that we could compare with: both papers report other data or other losses.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator, model_validator

from sections.fields import POSITIVE, Because, Other, Section, list_from_text, setting


class Modules(Section):
    """Modules of local methods."""

    num_modules: int | None = setting(
        None, "join the blocks to this many modules, each trained as one (1: back-propagation)", ge=1,
        shown="one for every block",
    )  # fmt: skip
    split: Literal["equal", "flops", "memory"] = setting(
        "equal", "what they share equally: blocks, operations or activations", needs={"num_modules": POSITIVE}
    )
    module_ends: tuple[int, ...] = setting(
        (),
        "instead, the last block of every module, as 2,5,8 (that of the network may be left out)",
        shown="every block",
        excludes={"num_modules": (Other(None), "")},
    )

    @field_validator("module_ends", mode="before")
    @classmethod
    def _list_from_text(cls, value: Any) -> Any:
        return list_from_text(value)

    @model_validator(mode="after")
    def _ascending(self) -> Modules:
        ends = self.module_ends
        if list(ends) != sorted(set(ends)) or (ends and ends[0] < 0):
            raise ValueError(f"--module_ends {','.join(map(str, ends))}: needs ascending numbers of blocks, from 0")
        return self


# Relation of settings with which a block does not learn on its own.
WAITS: dict[str, Because] = {"layer_parallel": (Other("off"), "blocks then need results of later blocks")}


class Overlap(Section):
    """Overlap of modules."""

    overlap: int = setting(
        0, "modules below its own that a module's loss trains as well", unit="modules", ge=0, excludes=WAITS
    )
