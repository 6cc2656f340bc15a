"""Colourisation: every block but the last also learns to draw the colours of a grey copy of the image.

Paper:
    Zhang, Isola, Efros 2016, "Colorful Image Colorization", arXiv 1603.08511.

Signal:
    As with reconstruct, but the decoder reads another image than it should draw: beside the labelled images, which keep
    their colours, the blocks see a copy of each in which every channel is the image's brightness.

Cost:
    Twice the images, and a decoder for each block.

Deviations:
    1. The paper's networks see damaged images only. Ours must classify as well, so they see both, and statistics of
       BatchNorm are those of both.
    2. Colours are drawn as numbers, with absolute error; the paper classifies bins of colour, weighted against the
       frequent ones, which keeps its pictures from turning grey. Brightness is 0.299 R + 0.587 G + 0.114 B (ITU-R
       BT.601).

Reference numbers:
    None that we could compare with: the paper trains AlexNets end to end on ImageNet.
"""

from __future__ import annotations

from torch import Tensor

from datamodules.base import Batch
from tasks._colour import ColourTask
from tasks._draw import Restoring


class Colourisation(ColourTask, Restoring):
    """Draw the colours of an image of which the block has seen the brightness alone."""

    SEEN = "grey"

    def damage(self, batch: Batch) -> tuple[Tensor, Batch]:
        """Every channel has the brightness of the pixel, before the normalisation."""
        return self.in_parts(batch)[0], batch
