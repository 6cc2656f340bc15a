"""Reconstruction: every block but the last also learns to reconstruct the image.

Paper:
    AlonNT/Thesis (commits a5661df to 73de555).

Signal:
    s_i is the mean absolute error between the augmented image and what a decoder draws from the block's output before
    its pool. Without ``--upsample`` the image is averaged to the size of the map.

Cost:
    A decoder for each block.

Deviations:
    1. Targets of a smaller decoder are averages over areas, theirs bilinear samples.
    2. No bias where a BatchNorm follows, and no unused decoder on the last block.
    3. ``--upsample_type bilinear`` is an open question of the thesis, not run there.

Reference numbers:
    AlonNT/Thesis, VGG11c, CIFAR-10 test accuracy, best of 1500 epochs: dgl 91.2 %; 0.5 / 0.5 with reconstruction
    91.0 %; reconstruction alone 84.4 %; only the last block trained, on random ones 73.3 %.
"""

from __future__ import annotations

from tasks._draw import Drawing


class Reconstruction(Drawing):
    """The target is the image itself."""
