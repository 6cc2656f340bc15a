"""The fast path from images to batches: the split stays on the device, and a batch is one gather.

There are no worker processes and no Python per image, and on a GPU nothing crosses the bus.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from consts import CROP_PADDING
from datamodules.augment import Drawn, Draws, draw, generator
from datamodules.base import Batch, DataSpec, ImageSet
from datamodules.curriculum import Curriculum
from schemas import DataArgs
from utils import UsageError

EVALUATION_BATCH = 500  # images where nothing is learnt; bounds memory, does not change results
_INT32_END = 2**31
_SECOND = "second "  # names the numbers that the second view is drawn with


def epoch_order(seed: int, epoch: int, num_images: int) -> Tensor:
    """The order of the images in an epoch: a permutation (int64, CPU) that depends on nothing but the arguments."""
    return torch.randperm(num_images, generator=generator(seed, epoch, "order"))


class Feed:
    """Batches of one split, by epoch and step.

    With ``augment`` the images come shuffled and augmented in torchvision's order (crop or resized crop, flip, erase,
    normalise) and a last partial batch is dropped; without, they come as they are and all of them.

    Args:
        images: the split; its pixels are not changed.
        spec: its description.
        batch_size: images per batch.
        device: where the split is kept.
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
        padding = CROP_PADDING if augment is not None and augment.random_crop else 0
        pixels_PHWC = images.images_PHWC.to(device).contiguous()
        self._pixels_PHWC = functional.pad(pixels_PHWC, (0, 0, *(padding,) * 4)) if padding else pixels_PHWC
        self._labels_P = images.labels_P.to(device)
        # Half the index traffic of int64, wherever the positions fit.
        fits = self._pixels_PHWC.numel() // spec.num_channels < _INT32_END
        self._index_dtype = torch.int32 if fits else torch.int64
        # (pixel / 255 - mean) / std as one multiply-add; repeated along a row, which keeps the inner loop long.
        mean_C, std_C = (torch.tensor(values, dtype=torch.float64) for values in (spec.mean, spec.std))
        self._scale_WC, self._shift_WC = (
            values_C.float().expand(spec.width, -1).contiguous().to(device)
            for values_C in (1 / (255 * std_C), -mean_C / std_C)
        )
        self._epoch: tuple[int, Drawn] | None = None

    @property
    def device(self) -> torch.device:
        """Where the split is kept, and the batches are."""
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

    def batch(self, epoch: int, step: int) -> Batch:
        """Batch ``step`` of epoch ``epoch``, a pure function of the seed and these two.

        Raises:
            IndexError: an epoch has no such step.
        """
        if not 0 <= step < self.num_steps:
            raise IndexError(f"step {step} of an epoch of {self.num_steps}")
        part = slice(step * self.batch_size, (step + 1) * self.batch_size)
        if self._augment is None:
            return Batch(self._normalised(self._pixels_PHWC[part]), self._labels_P[part])
        if self._epoch is None or self._epoch[0] != epoch:  # kept for as long as the epoch stays the same
            self._epoch = (epoch, self.drawn(epoch).each(lambda drawn_P: drawn_P.to(self.device, non_blocking=True)))
        return self.gather(self._epoch[1], part)

    def gather(self, drawn: Drawn, part: slice | Tensor) -> Batch:
        """The batch of the positions ``part`` in an epoch's order, of what was drawn for it and is on the device.

        With positions in a tensor nothing depends on the host, so that a CUDA graph can hold it.
        """
        picked_B = drawn.order_P[part]
        second_BCHW = None if drawn.second is None else self._view(picked_B, drawn.second, part)
        return Batch(self._view(picked_B, drawn.draws, part), self._labels_P[picked_B], second_BCHW)

    def _view(self, picked_B: Tensor, draws: Draws, part: slice | Tensor) -> Tensor:
        return self._normalised(self._augmented(picked_B, draws.each(lambda drawn_P: drawn_P[part])))

    def sample(self, count: int) -> Batch:
        """``count`` images spread evenly over the split, or all where there are fewer, for a look at them.

        Raises:
            ValueError: the feed augments.
        """
        if self._augment is not None:
            raise ValueError("a feed that augments has no images as they are")
        index_B = torch.linspace(0, self.num_images - 1, min(count, self.num_images), device=self.device).long()
        return Batch(self._normalised(self._pixels_PHWC[index_B]), self._labels_P[index_B])

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
        if self.curriculum is None:
            order_P = epoch_order(self._seed, epoch, self._labels_P.shape[0])
        else:
            order_P = self.curriculum.order(self._seed, epoch)
        drawn = Drawn(order_P, self.draws(epoch), second)
        return drawn.each(Tensor.pin_memory) if self.device.type == "cuda" else drawn

    def _augmented(self, picked_B: Tensor, draws: Draws) -> Tensor:
        """Crop or resized crop, flip and erase: uint8, or float32 where scaling leaves fractions (BHWC)."""
        row_H, column_W = (torch.arange(size, device=picked_B.device) for size in (self._height, self._width))
        flipped_BW = torch.where(draws.flip_P[:, None], column_W.flip(0), column_W)  # column that the crop's comes from
        if draws.side_P is None:
            rows_BH, columns_BW = draws.corner_P2[:, :1] + row_H, draws.corner_P2[:, 1:] + flipped_BW
            pixels_BHWC = self._gather(picked_B[:, None, None], rows_BH[:, :, None], columns_BW[:, None, :])
        else:
            pixels_BHWC = self._scaled(
                picked_B, draws.corner_P2, draws.side_P, row_H.expand(len(picked_B), -1), flipped_BW
            )
        if draws.erase_P4 is not None:
            top, left, height, width = draws.erase_P4[:, :, None].unbind(1)
            in_rows_BH = (row_H >= top) & (row_H < top + height)
            in_columns_BW = (column_W >= left) & (column_W < left + width)
            pixels_BHWC.masked_fill_((in_rows_BH[:, :, None] & in_columns_BW[:, None, :])[..., None], 0)
        return pixels_BHWC

    def _gather(self, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Pixels at the broadcast positions, one channel axis more than these: a single ``index_select``."""
        _, height, width, num_channels = self._pixels_PHWC.shape
        line = ((image * height + row) * width).to(self._index_dtype)
        index = line + column.to(self._index_dtype)
        return (
            self._pixels_PHWC.view(-1, num_channels).index_select(0, index.flatten()).view(*index.shape, num_channels)
        )

    def _scaled(self, picked_B: Tensor, corner_B2: Tensor, side_B: Tensor, row_BH: Tensor, column_BW: Tensor) -> Tensor:
        """Squares scaled to the image's size, bilinear between the centres of pixels (``align_corners=False``)."""
        rows_B2H, below_BH = _neighbours(row_BH, side_B[:, None], self._height)
        columns_B2W, right_BW = _neighbours(column_BW, side_B[:, None], self._width)
        corners_B22HWC = self._gather(
            picked_B[:, None, None, None, None],
            (rows_B2H + corner_B2[:, 0, None, None])[:, :, None, :, None],
            (columns_B2W + corner_B2[:, 1, None, None])[:, None, :, None, :],
        ).float()
        lines_B2HWC = torch.lerp(corners_B22HWC[:, 0], corners_B22HWC[:, 1], below_BH[:, None, :, None, None])
        return torch.lerp(lines_B2HWC[:, 0], lines_B2HWC[:, 1], right_BW[:, None, :, None])


def _neighbours(target_BK: Tensor, side_B1: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The two source positions (B2K) around each target position, and the weight (BK) of the second.

    Positions end at the crop's border, as in torchvision's ``resized_crop``, not at the image's.
    """
    source_BK = ((target_BK + 0.5) * (side_B1 / size) - 0.5).clamp(min=0)
    first_BK = source_BK.floor()
    second_BK = torch.minimum(first_BK + 1, side_B1 - 1.0)
    return torch.stack((first_BK, second_BK), 1).long(), source_BK - first_BK
