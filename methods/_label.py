"""Labels that are written into images, and the layers that networks which see them need."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.base import DataSpec
from layers.convolution import Conv2d
from model import Block
from objectives.goodness import goodness
from utils import UsageError

EPSILON = 1e-4  # beside the root of a mean square
_KEPT = ("kernel_size", "stride", "padding", "dilation", "padding_mode")  # of a convolution that is widened


class UnitLength(nn.Module):
    """Divides every image's map by the root of its mean square: nothing of its goodness is left for the next block."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return values of the same shape and type."""
        return x_BCHW / (goodness(x_BCHW) / x_BCHW.shape[1]).sqrt().add(EPSILON)[:, None, None, None].to(x_BCHW.dtype)


class LabelConv2d(Conv2d):
    """A convolution whose last input channel is the label's; images without that channel show no label, zeros."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Convolve (B, C, H, W) or (B, C + 1, H, W)."""
        return super().forward(F.pad(x_BCHW, (0, 0, 0, 0, 0, self.in_channels - x_BCHW.shape[1])))


class Label(nn.Module):
    """Writes labels into normalised images: white among black pixels at the beginning, or ones among zeros.

    In a channel of its own the code is repeated: every square of ``ceil(sqrt N)`` pixels, or a rectangle of N or more
    where the image is too low or narrow for it, has a one for the class, so that a convolution finds it everywhere. In
    the image it stands once, in every colour.

    Args:
        spec: of the images.
        in_channel: whether the label has a channel of its own.

    Raises:
        UsageError: the images have fewer pixels than there are classes.
    """

    code_NHW: Tensor
    levels_2C1: Tensor

    def __init__(self, spec: DataSpec, in_channel: bool) -> None:
        super().__init__()
        self.in_channel, self.num_classes = in_channel, spec.num_classes
        if spec.height * spec.width < spec.num_classes:
            raise UsageError(
                f"--label_in: images of {spec.height}x{spec.width} pixels have no room for {spec.num_classes} labels"
            )
        rows = columns = math.ceil(math.sqrt(spec.num_classes))
        if rows > spec.height:
            rows, columns = spec.height, math.ceil(spec.num_classes / spec.height)
        if columns > spec.width:
            rows, columns = math.ceil(spec.num_classes / spec.width), spec.width
        rows_H1, columns_W = torch.arange(spec.height)[:, None], torch.arange(spec.width)
        place_HW = rows_H1 % rows * columns + columns_W % columns
        code_NHW = (place_HW == torch.arange(spec.num_classes)[:, None, None]).float()
        self.register_buffer("code_NHW", code_NHW, persistent=False)
        mean_C, std_C = torch.tensor(spec.mean), torch.tensor(spec.std)
        self.register_buffer("levels_2C1", torch.stack([-mean_C, 1 - mean_C])[:, :, None] / std_C[:, None], False)

    def forward(self, x_BCHW: Tensor, y_B: Tensor) -> Tensor:
        """The images (B, C, H, W) with the labels (B,); with a channel more, if it has one of its own."""
        if self.in_channel:
            return torch.cat([x_BCHW, self.code_NHW[y_B, None].to(x_BCHW.dtype)], 1)
        black_C1, white_C1 = self.levels_2C1.to(x_BCHW.dtype)
        shown_B1N = y_B[:, None, None] == torch.arange(self.num_classes, device=y_B.device)
        pixels_BCP = x_BCHW.flatten(2)
        label_BCN = torch.where(shown_B1N, white_C1, black_C1)
        return torch.cat([label_BCN, pixels_BCP[:, :, self.num_classes :]], 2).view(x_BCHW.shape)


def widen(block: Block, num_channels: int) -> None:
    """Give the first convolution of ``block`` an input for the label, with new weights.

    Raises:
        UsageError: the block does not begin with a convolution of the image's channels.
    """
    name, first = next((name, layer) for name, layer in block.features.named_modules() if not [*layer.children()])
    if not isinstance(first, nn.Conv2d) or first.in_channels != num_channels or first.groups != 1:
        raise UsageError(
            f"--label_in channel: the network begins with {type(first).__name__}, which has no room for one; give "
            "--label_in image"
        )
    own: dict[str, Any] = {key: getattr(first, key) for key in _KEPT}
    wider = LabelConv2d(num_channels + 1, first.out_channels, bias=first.bias is not None, **own)
    if name:
        block.features.set_submodule(name, wider)
    else:
        block.features = wider
