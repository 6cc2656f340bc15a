"""Option group: back-propagation's memory against its time.

Paper:
    Chen, Xu, Zhang, Guestrin 2016, "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174.

Signal:
    As without. A block keeps its input alone, and is computed again when its gradient is due: the same bits, dropout
    included. BatchNorm's running statistics move the first time only.

Cost:
    The inputs of all blocks and one block's graph, in place of all graphs; one more forward pass of every block but the
    last, a third of the work of a step.
"""

from __future__ import annotations

from sections.fields import Section, setting


class Checkpoints(Section):
    """Activation checkpointing."""

    checkpoint_blocks: bool = setting(
        False, "keep only the input of every block, and compute the block again when its gradient is due: less memory, "
        "more time, the same bits", measures=True,
    )  # fmt: skip
