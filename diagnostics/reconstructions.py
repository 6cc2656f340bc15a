"""Reconstructions by the decoders of a method, as grids of images."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.base import Batch, DataSpec, pixels_of
from methods._base import Method

_SEED = 0  # tasks with random masks use the same masks every time, so that images can be compared
MIN_TILE = 96  # least side in pixels; small images are enlarged by an integer factor


def reconstruction_grids(method: Method, batch: Batch, spec: DataSpec) -> dict[int, Tensor]:
    """A grid (H, W, 3) of uint8 for every block with a decoder: targets in the upper row, reconstructions below.

    Args:
        method: evaluated in evaluation mode; training mode is restored.
        batch: one column per image.
        spec: mean and standard deviation to convert values back to pixels in [0, 1], to which they are clamped.
    """
    method.eval()
    devices = [batch.x_BCHW.device] if batch.x_BCHW.is_cuda else []
    with torch.inference_mode(), torch.random.fork_rng(devices=devices):
        torch.manual_seed(_SEED)
        drawn = method.reconstructions(batch)
    method.train()
    return {index: _grid(torch.cat(pair), batch.y_B.shape[0], spec) for index, pair in drawn.items()}


def _grid(images_BCHW: Tensor, num_columns: int, spec: DataSpec) -> Tensor:
    from torchvision.utils import make_grid  # here, because it takes seconds

    pixels_BCHW = pixels_of(images_BCHW.float().cpu(), spec)
    factor = -(-MIN_TILE // pixels_BCHW.shape[-1])
    pixels_BCHW = pixels_BCHW.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    grid_CHW = make_grid(pixels_BCHW, nrow=num_columns, padding=4, pad_value=1.0)
    return (grid_CHW * 255).round().byte().permute(1, 2, 0)
