"""Restoring: blocks learn to give back what is missing in an image, a region of it or its colours.

Paper:
    Pathak, Krahenbuhl, Donahue, Darrell, Efros 2016, "Context Encoders: Feature Learning by Inpainting", arXiv
    1604.07379; Zhang, Isola, Efros 2016, "Colorful Image Colorization", arXiv 1603.08511.

Signal:
    As with ``--ssl_task reconstruct``, but the decoder sees another image than it is to draw: behind the labelled
    images, which stay whole, the blocks see a damaged copy of each. ``inpaint``: a rectangle of half the image's height
    and half its width is 0, at a place drawn anew for every image and step, and the mean absolute error counts there
    alone. ``colourise``: every channel is the image's brightness, and the mean absolute error counts everywhere.

Cost:
    Twice the images, and a decoder for each block. ``inpaint`` draws random numbers in a step, so that the step is no
    CUDA graph.

Deviations:
    1. No adversarial loss beside inpainting, and absolute instead of squared error, as with the other decoders.
    2. The papers' networks see damaged images only. Ours must classify as well, so they see both, and statistics of
       BatchNorm are those of both.
    3. 0 is the value after normalisation: mid-grey for ``plus_minus_one``, the mean colour for ``unit_gaussian`` (as in
       the paper), black for ``none``.
    4. Where the decoder's map is smaller than the image, image and mask are averaged to its size, and a position counts
       as much as it is masked.
    5. Colours are drawn as numbers; the paper classifies bins of colour, weighted against the frequent ones, which
       keeps its pictures from turning grey. Brightness is 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).

Reference numbers:
    None that we could compare with: the papers train AlexNets end to end on ImageNet.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor

from consts import block_name
from datamodules.base import Batch, DataSpec
from methods._records import leading, trailing
from methods._ssl import Reconstruction, appended
from model import Backbone
from objectives.reconstruction import masked_reconstruction_loss, reconstruction_target
from schemas import LocalArgs
from utils import UsageError

BRIGHTNESS = (0.299, 0.587, 0.114)  # of R, G and B (ITU-R BT.601)
MASK = "inpainting_mask"


class Restoration(Reconstruction):
    """Give back the image from a damaged copy, which the blocks see behind the images that they have."""

    @abstractmethod
    def damage(self, batch: Batch) -> tuple[Tensor, Batch]:
        """A damaged copy of every labelled image, (B, C, H, W), and the batch with what was drawn for it."""

    def prepare(self, batch: Batch) -> Batch:
        """Append the damaged images."""
        damaged_BCHW, batch = self.damage(batch)
        return appended(batch, damaged_BCHW)

    def pictures(self, index: int, features_BCHW: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The whole image, and what is drawn from the damaged one."""
        drawn_BCHW = self.heads[block_name(index)](trailing(features_BCHW, batch))
        height, width = drawn_BCHW.shape[2:]
        return reconstruction_target(leading(batch.x_BCHW, batch), height, width), drawn_BCHW


class Inpainting(Restoration):
    """Draw a rectangle that the block has not seen."""

    def damage(self, batch: Batch) -> tuple[Tensor, Batch]:
        """A rectangle of a quarter of the area is 0."""
        image_BCHW = leading(batch.x_BCHW, batch)
        rows_BH, columns_BW = (self._covered(image_BCHW, size) for size in image_BCHW.shape[2:])
        mask_B1HW = (rows_BH[:, :, None] & columns_BW[:, None, :])[:, None]
        drawn = {**batch.drawn, MASK: mask_B1HW.to(image_BCHW.dtype)}
        return image_BCHW.masked_fill(mask_B1HW, 0), batch._replace(drawn=drawn)

    def _covered(self, image_BCHW: Tensor, size: int) -> Tensor:
        """Which positions of an axis of length ``size`` are covered in every image; each place is equally likely."""
        length = max(size // 2, 1)
        first_B1 = torch.randint(size - length + 1, (len(image_BCHW), 1), device=image_BCHW.device)
        position_S = torch.arange(size, device=image_BCHW.device)
        return (position_S >= first_B1) & (position_S < first_B1 + length)

    def loss(self, index: int, features_BCHW: Tensor, batch: Batch) -> Tensor:
        """Mean absolute error where the image was masked."""
        target_BCHW, drawn_BCHW = self.pictures(index, features_BCHW, batch)
        mask_B1HW = reconstruction_target(batch.drawn[MASK], *drawn_BCHW.shape[2:])
        return masked_reconstruction_loss(drawn_BCHW, target_BCHW, mask_B1HW)


class Colourisation(Restoration):
    """Draw the colours of an image of which the block has seen the brightness alone.

    Raises:
        UsageError: the images are grey.
    """

    mean_C11: Tensor
    std_C11: Tensor
    share_C11: Tensor

    def __init__(self, args: LocalArgs, backbone: Backbone, spec: DataSpec, blocks: Iterable[int]) -> None:
        if spec.num_channels != len(BRIGHTNESS):
            raise UsageError(
                f"--ssl_task colourise needs colours, and the images of {spec.name} are grey; use --ssl_task inpaint"
            )
        super().__init__(args, backbone, spec, blocks)
        for name, values in (("mean_C11", spec.mean), ("std_C11", spec.std), ("share_C11", BRIGHTNESS)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def damage(self, batch: Batch) -> tuple[Tensor, Batch]:
        """Every channel has the brightness of the pixel, before the normalisation."""
        pixels_BCHW = leading(batch.x_BCHW, batch) * self.std_C11 + self.mean_C11
        grey_B1HW = (self.share_C11 * pixels_BCHW).sum(1, keepdim=True)
        return (grey_B1HW - self.mean_C11) / self.std_C11, batch
