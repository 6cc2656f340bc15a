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

from collections.abc import Iterable

import torch
from torch import Tensor

from datamodules.base import LABELLED, Batch, DataSpec
from model import Backbone
from sections.rule import MethodArgs
from tasks._draw import Restoring
from utils import UsageError

BRIGHTNESS = (0.299, 0.587, 0.114)  # of R, G and B (ITU-R BT.601)


class Colourisation(Restoring):
    """Draw the colours of an image of which the block has seen the brightness alone.

    Raises:
        UsageError: the images are grey.
    """

    SEEN = "grey"
    mean_C11: Tensor
    std_C11: Tensor
    share_C11: Tensor

    def __init__(self, args: MethodArgs, backbone: Backbone, spec: DataSpec, blocks: Iterable[int]) -> None:
        if spec.num_channels != len(BRIGHTNESS):
            raise UsageError(
                f"{args.tasks.flag_of('colourise')} needs colours, and the images of {spec.name} are grey; leave it "
                "out, or choose another task"
            )
        super().__init__(args, backbone, spec, blocks)
        for name, values in (("mean_C11", spec.mean), ("std_C11", spec.std), ("share_C11", BRIGHTNESS)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def damage(self, batch: Batch) -> tuple[Tensor, Batch]:
        """Every channel has the brightness of the pixel, before the normalisation."""
        pixels_BCHW = batch.part(batch.x_BCHW, LABELLED) * self.std_C11 + self.mean_C11
        grey_B1HW = (self.share_C11 * pixels_BCHW).sum(1, keepdim=True)
        return (grey_B1HW - self.mean_C11) / self.std_C11, batch
