"""A locally connected layer: the windows of a convolution, and at every position weights of its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def transposed(grad_BOHW: Tensor, weight: Tensor, kernel_size: int, padded: bool = False) -> Tensor:
    """The gradient at the input of a layer with these weights (B, in_channels, H, W); ``padded``: with its padding."""
    channels, *sides = grad_BOHW.shape[1:]
    windows_PBK = grad_BOHW.flatten(2).permute(2, 0, 1) @ weight.unflatten(0, (-1, channels))
    around, cut = (kernel_size - 1, 0) if padded else (0, kernel_size // 2)
    size = sides[0] + around, sides[1] + around
    return F.fold(windows_PBK.permute(1, 2, 0), size, kernel_size, padding=cut)


class LocallyConnected2d(nn.Module):
    """As a convolution of stride 1 that keeps the size of the map, but positions share no weights.

    Bartunov et al. 2018, arXiv 1807.04587, ask with such layers what it costs not to share weights. torch has none.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        size: height and width of the map.
        kernel_size: side of a window; odd.
        padding_mode: as of `nn.Conv2d`.

    Attributes:
        weight: (H W out_channels, in_channels kernel_size^2), a row for each output, position by position. Two
            dimensions, since those of four are reordered with the memory layout of the images.
        bias: one for each output.
    """

    weight: Tensor
    stride = dilation = (1, 1)
    groups = 1

    def __init__(
        self, in_channels: int, out_channels: int, size: tuple[int, int], kernel_size: int, padding_mode: str = "zeros"
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.size = in_channels, out_channels, size
        self.kernel_size, self.padding = (kernel_size, kernel_size), (kernel_size // 2, kernel_size // 2)
        self.padding_mode = padding_mode
        self.weight = nn.Parameter(torch.empty(math.prod(size) * out_channels, in_channels * kernel_size**2))
        self.bias = nn.Parameter(torch.empty(len(self.weight)))
        bound = 1 / math.sqrt(self.weight.shape[1])  # the law of `nn.Conv2d`
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def padded(self, x_BCHW: Tensor) -> Tensor:
        """With what surrounds the map."""
        (rows, columns), mode = self.padding, "constant" if self.padding_mode == "zeros" else self.padding_mode
        return F.pad(x_BCHW, (columns, columns, rows, rows), mode)

    def of_padded(self, x_BCHW: Tensor) -> Tensor:
        """The output (B, out_channels, H, W) for an input that is `padded` already."""
        weight_PKO = self.weight.unflatten(0, (-1, self.out_channels)).mT
        bias_PIO = self.bias.view(-1, 1, self.out_channels)
        # In the weights' own type on a CPU, whose batched products in bf16 take three to five times as long.
        with torch.autocast("cpu", enabled=False):
            x_BCHW = x_BCHW.to(self.weight.dtype) if x_BCHW.device.type == "cpu" else x_BCHW
            windows_PBK = F.unfold(x_BCHW, self.kernel_size).permute(2, 0, 1)
            out_PBO = torch.baddbmm(bias_PIO, windows_PBK, weight_PKO)
        return out_PBO.permute(1, 2, 0).clone(memory_format=torch.contiguous_format).unflatten(2, self.size)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        return self.of_padded(self.padded(input))
