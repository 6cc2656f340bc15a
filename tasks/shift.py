"""Shifted reconstruction: every block but the last also learns to reconstruct the image, shifted.

Paper:
    AlonNT/Thesis (commits a5661df to 73de555).

Signal:
    As with reconstruct, but the target is the image rolled down and to the right, by a shift that grows linearly over
    the blocks from 5 pixels to half the image. ``--upsample`` is required: on a reduced image the shifts would be
    larger than they say.

Cost:
    A decoder for each block.

Deviations:
    1. Shifts are spread over the blocks, theirs over blocks and pools.

Reference numbers:
    AlonNT/Thesis, VGG11c, CIFAR-10 test accuracy, best of 1500 epochs: dgl 91.2 %; 0.5 / 0.5 with the shifted image
    90.1 %; alone 81.7 %.
"""

from __future__ import annotations

from objectives.reconstruction import shift_schedule
from tasks._draw import Drawing


class ShiftedReconstruction(Drawing):
    """The target is rolled further from block to block."""

    def shift(self, index: int) -> int:
        """As `objectives.reconstruction.shift_schedule` has it."""
        return shift_schedule(self.num_blocks, min(self.image.height, self.image.width))[index]
