"""Coarse labels for early blocks: first two super-classes, then five, and for the last third the classes themselves.

Paper:
    An idea in the notes of AlonNT/Thesis that was not run there.

Signal:
    The first third of the blocks learns the probability of vehicle or animal, the second third that of five pairs,
    each the sum over its classes; the others learn the classes, the last one always.

Cost:
    None.

Deviations:
    1. The pairs are ours; the notes name only "two classes".
    2. Heads keep a logit for every class, and accuracies count classes, so those of early blocks say little.

Reference numbers:
    None.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from consts import SUPER_CLASSES
from datamodules.base import DataSpec
from utils import UsageError


class CoarseLabels(nn.Module):
    """Labels of every block on its own level of `consts.SUPER_CLASSES`; the levels share the blocks equally.

    Heads keep a logit for every class, so that accuracies of all blocks count the same thing; what a block learns is
    the probability of a super-class, the sum over its members.

    Raises:
        UsageError: the data set has other classes.
    """

    def __init__(self, spec: DataSpec, num_blocks: int) -> None:
        super().__init__()
        known = sorted(name for group in SUPER_CLASSES[0] for name in group)
        if sorted(spec.class_names) != known:
            raise UsageError(
                f"--coarse_labels_first knows the super-classes of CIFAR-10 ({', '.join(known)}) only, and the data "
                f"set {spec.name} has {spec.num_classes} classes that are not these"
            )
        self.num_blocks, self.num_classes = num_blocks, spec.num_classes
        for level, groups in enumerate(SUPER_CLASSES):
            member_GN = torch.tensor([[name in group for name in spec.class_names] for group in groups])
            self.register_buffer(f"member_{level}", member_GN, persistent=False)

    def member_GN(self, index: int) -> Tensor | None:
        """Which classes are in which group for block ``index``; None where it learns the classes themselves."""
        level = index * (len(SUPER_CLASSES) + 1) // self.num_blocks
        if level == len(SUPER_CLASSES) or index == self.num_blocks - 1:
            return None
        member_GN: Tensor = self.get_buffer(f"member_{level}")
        return member_GN

    def labels(self, index: int, y_B: Tensor) -> tuple[Tensor, int]:
        """Labels on the level of block ``index``, and how many there are."""
        member_GN = self.member_GN(index)
        return (y_B, self.num_classes) if member_GN is None else (member_GN[:, y_B].int().argmax(0), len(member_GN))
