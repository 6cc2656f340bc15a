"""Inpainting: every block but the last also learns to draw a masked rectangle of the image.

Paper:
    Pathak, Krahenbuhl, Donahue, Darrell, Efros 2016, "Context Encoders: Feature Learning by Inpainting", arXiv
    1604.07379.

Signal:
    As with reconstruct, but the decoder reads another image than it should draw: beside the labelled images, which stay
    whole, the blocks see a copy of each in which a rectangle of half the height and half the width is 0, at a place
    drawn anew for every image and step. The mean absolute error counts in that rectangle alone.

Cost:
    Twice the images, and a decoder for each block.

Deviations:
    1. The paper's networks see damaged images only. Ours must classify as well, so they see both, and statistics of
       BatchNorm are those of both.
    2. No adversarial loss, and absolute instead of squared error, as with the other decoders.
    3. 0 is the value after normalisation: mid-grey for ``plus_minus_one``, the mean colour for ``unit_gaussian`` (as in
       the paper), black for ``none``.
    4. Where the decoder's map is smaller than the image, image and mask are averaged to its size, and a position counts
       as much as it is masked.

Reference numbers:
    None that we could compare with: the paper trains AlexNets end to end on ImageNet.
"""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.base import LABELLED, Batch
from objectives.reconstruction import masked_reconstruction_loss, reconstruction_target
from tasks._draw import Restoring

MASK = "inpainting_mask"


class Inpainting(Restoring):
    """Draw a rectangle that the block has not seen."""

    SEEN = "masked"

    def damage(self, batch: Batch) -> tuple[Tensor, Batch]:
        """A rectangle of a quarter of the area is 0."""
        image_BCHW = batch.part(batch.x_BCHW, LABELLED)
        rows_BH, columns_BW = (self._covered(batch, size) for size in image_BCHW.shape[2:])
        mask_B1HW = (rows_BH[:, :, None] & columns_BW[:, None, :])[:, None]
        drawn = {**batch.drawn, MASK: mask_B1HW.to(image_BCHW.dtype)}
        return image_BCHW.masked_fill(mask_B1HW, 0), batch._replace(drawn=drawn)

    def _covered(self, batch: Batch, size: int) -> Tensor:
        """Which positions of an axis of length ``size`` are covered in every image; each place is equally likely."""
        length, device, source = max(size // 2, 1), batch.y_B.device, batch.generator
        first_B1 = batch.rows_of_step(
            lambda count: torch.randint(size - length + 1, (count, 1), device=device, generator=source)
        )
        position_S = torch.arange(size, device=device)
        return (position_S >= first_B1) & (position_S < first_B1 + length)

    def loss(self, index: int, features_BCHW: Tensor, batch: Batch) -> Tensor:
        """Mean absolute error where the image was masked."""
        target_BCHW, drawn_BCHW = self.pictures(index, features_BCHW, batch)
        mask_B1HW = reconstruction_target(batch.drawn[MASK], *drawn_BCHW.shape[2:])
        return masked_reconstruction_loss(drawn_BCHW, target_BCHW, mask_B1HW)
