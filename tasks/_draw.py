"""The family of tasks whose head is a decoder: give back the image, from the image itself or from a damaged copy."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from datamodules.base import LABELLED, Batch
from heads.decoder import decoder
from model import Shape
from objectives.reconstruction import reconstruction_loss, reconstruction_target
from tasks._base import Task


class Drawing(Task):
    """Give back the augmented image, averaged to the size of the decoder's map where that is smaller."""

    SEEN = LABELLED  # the images from whose features the decoder draws

    def build_head(self, shape: Shape) -> nn.Module:
        """A decoder, of the kind that ``--upsample`` and ``--upsample_type`` name."""
        tasks = self.args.tasks
        return decoder(shape, self.image, tasks.upsample_type if tasks.upsample else None)

    def shift(self, index: int) -> int:
        """Pixels by which the target of block ``index`` is rolled down and to the right."""
        return 0

    def pictures(self, index: int, features_BCHW: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The target and what the decoder draws."""
        drawn_BCHW = self.head(index)(batch.part(features_BCHW, self.SEEN))
        height, width = drawn_BCHW.shape[2:]
        image_BCHW = batch.part(batch.x_BCHW, LABELLED)
        return reconstruction_target(image_BCHW, height, width, self.shift(index)), drawn_BCHW

    def loss(self, index: int, features_BCHW: Tensor, batch: Batch) -> Tensor:
        """Mean absolute error."""
        target_BCHW, drawn_BCHW = self.pictures(index, features_BCHW, batch)
        return reconstruction_loss(drawn_BCHW, target_BCHW)


class Restoring(Drawing):
    """Give back the image from a damaged copy, which the blocks see beside the images that they have."""

    @abstractmethod
    def damage(self, batch: Batch) -> tuple[Tensor, Batch]:
        """A damaged copy of every labelled image, (B, C, H, W), and the batch with what was drawn for it."""

    def prepare(self, batch: Batch) -> Batch:
        """Add the damaged images, under the name `Drawing.SEEN`."""
        damaged_BCHW, batch = self.damage(batch)
        return batch.with_images(self.SEEN, damaged_BCHW)
