"""Kernels of the first convolution as an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model import Backbone

TILE = 32  # least side of a kernel in pixels; kernels are enlarged by an integer factor
NUM_COLUMNS = 16
_PICTURE_CHANNELS = (1, 3)  # grey or colour


def first_filters(backbone: Backbone) -> Tensor | None:
    """A grid (H, W, 3) of uint8 with the kernels of the first convolution; None unless it has 1 or 3 input channels.

    Each kernel is scaled separately to [0, 1], so kernels can be compared in shape, not in magnitude.
    """
    convolution = next((module for module in backbone.modules() if isinstance(module, nn.Conv2d)), None)
    if convolution is None or convolution.in_channels not in _PICTURE_CHANNELS:
        return None
    from torchvision.utils import make_grid  # here, because it takes seconds

    kernels_OCHW = convolution.weight.detach().float().cpu()
    low_O, high_O = kernels_OCHW.flatten(1).amin(1), kernels_OCHW.flatten(1).amax(1)
    span_O = torch.where(high_O > low_O, high_O - low_O, 1.0)
    pixels_OCHW = (kernels_OCHW - low_O[:, None, None, None]) / span_O[:, None, None, None]
    factor = -(-TILE // pixels_OCHW.shape[-1])
    pixels_OCHW = pixels_OCHW.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    grid_CHW = make_grid(pixels_OCHW, nrow=NUM_COLUMNS, padding=4, pad_value=1.0)
    return (grid_CHW * 255).round().byte().permute(1, 2, 0)
