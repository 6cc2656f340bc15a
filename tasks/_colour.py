"""Tasks that tell an image's brightness from its colours."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from datamodules.base import LABELLED, Batch, DataSpec
from model import Backbone
from sections.rule import MethodArgs
from tasks._base import Task
from utils import UsageError

BRIGHTNESS = (0.299, 0.587, 0.114)  # of R, G and B (ITU-R BT.601)


class ColourTask(Task):
    """A task on images in RGB.

    Raises:
        UsageError: the images are grey.
    """

    mean_C11: Tensor
    std_C11: Tensor
    share_C11: Tensor

    def __init__(self, args: MethodArgs, backbone: Backbone, spec: DataSpec, blocks: Iterable[int]) -> None:
        if spec.num_channels != len(BRIGHTNESS):
            raise UsageError(
                f"{args.tasks.flag_of(type(self).__module__.rpartition('.')[2])} needs colours, and the images of "
                f"{spec.name} are grey; leave it out, or choose another task"
            )
        super().__init__(args, backbone, spec, blocks)
        for name, values in (("mean_C11", spec.mean), ("std_C11", spec.std), ("share_C11", BRIGHTNESS)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def in_parts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The labelled images in two parts, (B, 3, H, W) each, normalised: brightness in every channel, and colours.

        The colours are what a pixel's channels differ from its brightness by. Both parts add up to the image.
        """
        image_BCHW = batch.part(batch.x_BCHW, LABELLED)
        pixels_BCHW = image_BCHW * self.std_C11 + self.mean_C11  # before the normalisation
        grey_BCHW = ((self.share_C11 * pixels_BCHW).sum(1, keepdim=True) - self.mean_C11) / self.std_C11
        return grey_BCHW, image_BCHW - grey_BCHW
