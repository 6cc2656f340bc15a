"""The fast path from images to batches: the split stays on the device, and a batch is one gather.

There are no worker processes and no Python per image, and on a GPU nothing crosses the bus. Of a split that does not
fit there (`datamodules.placement`) the images of a batch are read ahead, and the same gather picks from them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from consts import CROP_PADDING
from datamodules.augment import Drawn, Draws, draw, generator
from datamodules.base import Batch, DataSpec, ImageSet
from datamodules.curriculum import Curriculum
from datamodules.placement import Ahead, Place, place, resident
from schemas import DataArgs
from utils import UsageError

EVALUATION_BATCH = 500  # images of up to 32x32 pixels where nothing is learnt; bounds memory
_INT32_END = 2**31
_SECOND = "second "  # names the numbers that the second view is drawn with


def epoch_order(seed: int, epoch: int, num_images: int) -> Tensor:
    """The order of the images in an epoch: a permutation (int64, CPU) that depends on nothing but the arguments."""
    return torch.randperm(num_images, generator=generator(seed, epoch, "order"))


def evaluation_batch(spec: DataSpec) -> int:
    """Images to evaluate at once: of larger ones fewer, so that a batch takes no more memory."""
    return max(1, min(EVALUATION_BATCH, EVALUATION_BATCH * 32 * 32 // (spec.height * spec.width)))


class Feed:
    """Batches of one split, by epoch and step.

    With ``augment`` the images come shuffled and augmented in torchvision's order (crop or resized crop, flip, erase,
    normalise) and a last partial batch is dropped; without, they come as they are and all of them.

    Attributes:
        placement: where the images are kept.

    Args:
        images: the split; its pixels are not changed.
        spec: its description.
        batch_size: images per batch.
        device: where the batches are, and the split, if it fits.
        augment: settings of the augmentations; None for evaluation.
        seed: seed of order and augmentation.
        curriculum: which images an epoch may draw, of all of them; None for no limit.
        two_views: augment every image twice; the second view comes with the batch.

    Raises:
        UsageError: fewer training images than one batch needs.
    """

    def __init__(
        self,
        images: ImageSet,
        spec: DataSpec,
        batch_size: int,
        device: torch.device,
        *,
        augment: DataArgs | None = None,
        seed: int = 0,
        curriculum: Curriculum | None = None,
        two_views: bool = False,
    ) -> None:
        if augment is not None and batch_size > images.num_images:
            count = images.num_images
            raise UsageError(
                f"--batch_size {batch_size}: there are {count} training images, so it must be at most {count}"
            )
        self.spec = spec
        self.batch_size, self._augment, self._seed = batch_size, augment, seed
        self.curriculum, self._two_views = curriculum, two_views
        self._height, self._width = spec.height, spec.width
        self._padding = CROP_PADDING if augment is not None and augment.random_crop else 0
        self._labels_P = images.labels_P.to(device)
        height, width = (size + 2 * self._padding for size in (spec.height, spec.width))
        self.placement = place(images, device, images.num_images * height * width * spec.num_channels)
        self._pixels_PHWC = resident(images, device, self._padding) if self.placement.is_resident else None
        self._ahead = Ahead(images, device, self._positions, self._following)
        # (pixel / 255 - mean) / std as one multiply-add; repeated along a row, which keeps the inner loop long.
        mean_C, std_C = (torch.tensor(values, dtype=torch.float64) for values in (spec.mean, spec.std))
        self._scale_WC, self._shift_WC = (
            values_C.float().expand(spec.width, -1).contiguous().to(device)
            for values_C in (1 / (255 * std_C), -mean_C / std_C)
        )
        self._epoch: tuple[int, Drawn] | None = None
        self._order: tuple[int, Tensor] | None = None

    @property
    def device(self) -> torch.device:
        """Where the batches are."""
        return self._labels_P.device

    @property
    def num_steps(self) -> int:
        """Batches in an epoch."""
        count, size = self._labels_P.shape[0], self.batch_size
        return count // size if self._augment is not None else -(-count // size)

    @property
    def num_images(self) -> int:
        """Images seen in an epoch."""
        count = self._labels_P.shape[0]
        return self.num_steps * self.batch_size if self._augment is not None else count

    @property
    def num_left_out(self) -> int:
        """Images that an epoch leaves out, because they fill no batch; other ones in every epoch."""
        return self._labels_P.shape[0] - self.num_images

    def batch(self, epoch: int, step: int) -> Batch:
        """Batch ``step`` of epoch ``epoch``, a pure function of the seed and these two.

        Raises:
            IndexError: an epoch has no such step.
        """
        if not 0 <= step < self.num_steps:
            raise IndexError(f"step {step} of an epoch of {self.num_steps}")
        part = slice(step * self.batch_size, (step + 1) * self.batch_size)
        if self._augment is None:
            pixels_BHWC = self._ahead.batch(0, step) if self._pixels_PHWC is None else self._pixels_PHWC[part]
            return Batch(self._normalised(pixels_BHWC), self._labels_P[part])
        if self._epoch is None or self._epoch[0] != epoch:  # kept for as long as the epoch stays the same
            self._epoch = (epoch, self.drawn(epoch).each(lambda drawn_P: drawn_P.to(self.device, non_blocking=True)))
        drawn = self._epoch[1]
        if self._pixels_PHWC is not None:
            return self.gather(drawn, part)
        pixels_BHWC = functional.pad(self._ahead.batch(epoch, step), (0, 0, *(self._padding,) * 4))
        every_B = torch.arange(self.batch_size, device=self.device)
        return self._batch(pixels_BHWC, every_B, self._labels_P[drawn.order_P[part]], drawn, part)

    def gather(self, drawn: Drawn, part: slice | Tensor) -> Batch:
        """The batch of the positions ``part`` in an epoch's order, of what was drawn for it and is on the device.

        With positions in a tensor nothing depends on the host, so that a CUDA graph can hold it. The split must be on
        the device (`placement`).
        """
        assert self._pixels_PHWC is not None
        picked_B = drawn.order_P[part]
        return self._batch(self._pixels_PHWC, picked_B, self._labels_P[picked_B], drawn, part)

    def _batch(self, pixels_PHWC: Tensor, picked_B: Tensor, y_B: Tensor, drawn: Drawn, part: slice | Tensor) -> Batch:
        """Augment the images ``picked_B`` of some that are padded, with what was drawn for ``part`` of an epoch."""

        def view(draws: Draws) -> Tensor:
            return self._normalised(self._augmented(pixels_PHWC, picked_B, draws.each(lambda drawn_P: drawn_P[part])))

        return Batch(view(drawn.draws), y_B, None if drawn.second is None else view(drawn.second))

    def _positions(self, place: Place) -> Tensor:
        """Which images a batch has; called by the thread that reads ahead."""
        epoch, step = place
        if self._augment is None:
            order_P = torch.arange(self._labels_P.shape[0])
        else:
            if self._order is None or self._order[0] != epoch:
                self._order = (epoch, self._epoch_order(epoch))
            order_P = self._order[1]
        return order_P[step * self.batch_size : (step + 1) * self.batch_size]

    def _following(self, place: Place) -> Place:
        epoch, step = place
        if step + 1 < self.num_steps:
            return epoch, step + 1
        return (epoch, 0) if self._augment is None else (epoch + 1, 0)

    def _epoch_order(self, epoch: int) -> Tensor:
        if self.curriculum is None:
            return epoch_order(self._seed, epoch, self._labels_P.shape[0])
        return self.curriculum.order(self._seed, epoch)

    def sample(self, count: int) -> Batch:
        """``count`` images spread evenly over the split, or all where there are fewer, for a look at them.

        Raises:
            ValueError: the feed augments.
        """
        if self._augment is not None:
            raise ValueError("a feed that augments has no images as they are")
        index_B = torch.linspace(0, self.num_images - 1, min(count, self.num_images), device=self.device).long()
        if self._pixels_PHWC is None:
            pixels_BHWC = self._ahead.read(index_B.cpu()).to(self.device)
        else:
            pixels_BHWC = self._pixels_PHWC[index_B]
        return Batch(self._normalised(pixels_BHWC), self._labels_P[index_B])

    def _normalised(self, pixels_BHWC: Tensor) -> Tensor:
        x_BHWC = torch.addcmul(self._shift_WC, pixels_BHWC.float(), self._scale_WC)
        return x_BHWC.permute(0, 3, 1, 2)  # a view: NHWC in memory is what channels_last means

    def draws(self, epoch: int, view: str = "") -> Draws:
        """What is done to the images of ``epoch`` for one view, on the CPU, by position in its order.

        Raises:
            ValueError: the feed does not augment.
        """
        if self._augment is None:
            raise ValueError("a feed without augmentation draws nothing")
        return draw(self._augment, self._seed, epoch, self._labels_P.shape[0], self._height, self._width, view)

    def drawn(self, epoch: int) -> Drawn:
        """Order and draws of ``epoch``, on the CPU; for a GPU in pinned memory, from where a copy need not wait."""
        second = self.draws(epoch, _SECOND) if self._two_views else None
        drawn = Drawn(self._epoch_order(epoch), self.draws(epoch), second)
        return drawn.each(Tensor.pin_memory) if self.device.type == "cuda" else drawn

    def _augmented(self, pixels_PHWC: Tensor, picked_B: Tensor, draws: Draws) -> Tensor:
        """Crop or resized crop, flip and erase: uint8, or float32 where scaling leaves fractions (BHWC)."""
        row_H, column_W = (torch.arange(size, device=picked_B.device) for size in (self._height, self._width))
        flipped_BW = torch.where(draws.flip_P[:, None], column_W.flip(0), column_W)  # column that the crop's comes from
        if draws.side_P is None:
            rows_BH, columns_BW = draws.corner_P2[:, :1] + row_H, draws.corner_P2[:, 1:] + flipped_BW
            pixels_BHWC = _gather(pixels_PHWC, picked_B[:, None, None], rows_BH[:, :, None], columns_BW[:, None, :])
        else:
            lines_BH = row_H.expand(len(picked_B), -1)
            pixels_BHWC = self._scaled(pixels_PHWC, picked_B, draws.corner_P2, draws.side_P, lines_BH, flipped_BW)
        if draws.erase_P4 is not None:
            top, left, height, width = draws.erase_P4[:, :, None].unbind(1)
            in_rows_BH = (row_H >= top) & (row_H < top + height)
            in_columns_BW = (column_W >= left) & (column_W < left + width)
            pixels_BHWC.masked_fill_((in_rows_BH[:, :, None] & in_columns_BW[:, None, :])[..., None], 0)
        return pixels_BHWC

    def _scaled(
        self,
        pixels_PHWC: Tensor,
        picked_B: Tensor,
        corner_B2: Tensor,
        side_B: Tensor,
        row_BH: Tensor,
        column_BW: Tensor,
    ) -> Tensor:
        """Squares scaled to the image's size, bilinear between the centres of pixels (``align_corners=False``)."""
        rows_B2H, below_BH = _neighbours(row_BH, side_B[:, None], self._height)
        columns_B2W, right_BW = _neighbours(column_BW, side_B[:, None], self._width)
        corners_B22HWC = _gather(
            pixels_PHWC,
            picked_B[:, None, None, None, None],
            (rows_B2H + corner_B2[:, 0, None, None])[:, :, None, :, None],
            (columns_B2W + corner_B2[:, 1, None, None])[:, None, :, None, :],
        ).float()
        lines_B2HWC = torch.lerp(corners_B22HWC[:, 0], corners_B22HWC[:, 1], below_BH[:, None, :, None, None])
        return torch.lerp(lines_B2HWC[:, 0], lines_B2HWC[:, 1], right_BW[:, None, :, None])


def _gather(pixels_PHWC: Tensor, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Pixels at the broadcast positions, one channel axis more than these: a single ``index_select``."""
    count, height, width, num_channels = pixels_PHWC.shape
    # Half the index traffic of int64, wherever the positions fit.
    dtype = torch.int32 if count * height * width < _INT32_END else torch.int64
    line = ((image * height + row) * width).to(dtype)
    index = line + column.to(dtype)
    return pixels_PHWC.view(-1, num_channels).index_select(0, index.flatten()).view(*index.shape, num_channels)


def _neighbours(target_BK: Tensor, side_B1: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The two source positions (B2K) around each target position, and the weight (BK) of the second.

    Positions end at the crop's border, as in torchvision's ``resized_crop``, not at the image's.
    """
    source_BK = ((target_BK + 0.5) * (side_B1 / size) - 0.5).clamp(min=0)
    first_BK = source_BK.floor()
    second_BK = torch.minimum(first_BK + 1, side_B1 - 1.0)
    return torch.stack((first_BK, second_BK), 1).long(), source_BK - first_BK
