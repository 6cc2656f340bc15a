"""Reconstruction losses between a decoder's output and the image, and their targets (AlonNT/Thesis, a5661df ff.)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from objectives.classification import binary_cross_entropy

FIRST_SHIFT = 5  # pixels, of block 0 (AlonNT/Thesis, commit 73de555)


def reconstruction_loss(prediction_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
    """Mean absolute error over all elements, in float32 or wider. Predictions that are off by 0.5 give 0.5."""
    if prediction_BCHW.dtype.itemsize < 4:
        prediction_BCHW = prediction_BCHW.float()
    return F.l1_loss(prediction_BCHW, target_BCHW)


def masked_reconstruction_loss(prediction_BCHW: Tensor, target_BCHW: Tensor, mask_B1HW: Tensor) -> Tensor:
    """Mean absolute error where ``mask_B1HW`` is 1, in float32 or wider; a mask between 0 and 1 is a weight.

    Predictions that are off by 0.5 in the masked positions give 0.5, whatever they are elsewhere. The mask must not be
    0 everywhere.
    """
    if prediction_BCHW.dtype.itemsize < 4:
        prediction_BCHW = prediction_BCHW.float()
    error_BCHW = (prediction_BCHW - target_BCHW).abs() * mask_B1HW
    return error_BCHW.sum() / (mask_B1HW.sum() * target_BCHW.shape[1])


def pixel_cross_entropy(logits_BCHW: Tensor, pixels_BCHW: Tensor) -> Tensor:
    """Binary cross-entropy of ``sigmoid(logits)`` against pixels in [0, 1], mean over all elements, as InfoPro's.

    In float32 or wider. Logits of 0 give ``ln 2`` whatever the pixels; the least value is the pixels' own entropy.
    """
    return binary_cross_entropy(logits_BCHW, pixels_BCHW)


def reconstruction_target(x_BCHW: Tensor, height: int, width: int, shift: int = 0) -> Tensor:
    """The target of reconstruction: the image averaged down to the output's size, then rolled by ``shift`` pixels.

    The roll is circular, by ``shift`` pixels downwards and as many to the right: pixel (r, c) of the image is at
    ((r + shift) mod H, (c + shift) mod W) of the target.
    """
    if x_BCHW.shape[2:] != (height, width):
        x_BCHW = F.adaptive_avg_pool2d(x_BCHW, (height, width))
    return x_BCHW.roll((shift, shift), (2, 3)) if shift else x_BCHW


def shift_schedule(num_blocks: int, image_size: int) -> list[int]:
    """Shift of every block, in pixels: rising linearly from 5 to half of ``image_size``, rounded down.

    On images of less than 10 pixels all are half of the size. A single block gets the first shift.
    """
    half = image_size // 2
    first = min(FIRST_SHIFT, half)
    return [first + index * (half - first) // max(num_blocks - 1, 1) for index in range(num_blocks)]
