"""A locally connected layer: the windows of a convolution, and at every position weights of its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def transposed(
    grad_BOHW: Tensor,
    weight: Tensor,
    kernel_size: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
) -> Tensor:
    """The gradient at the input (B, in_channels, H, W) of a layer with these weights, without what ``padding`` adds."""
    channels, *sides = grad_BOHW.shape[1:]
    windows_PBK = grad_BOHW.flatten(2).permute(2, 0, 1) @ weight.unflatten(0, (-1, channels))
    geometry = zip(sides, kernel_size, stride, padding, strict=True)
    size = tuple((side - 1) * step + reach - 2 * cut for side, reach, step, cut in geometry)
    return F.fold(windows_PBK.permute(1, 2, 0), size, kernel_size, padding=padding, stride=stride)


class LocallyConnected2d(nn.Module):
    """As a convolution, but positions share no weights.

    Bartunov et al. 2018, arXiv 1807.04587, ask with such layers what it costs not to share weights. torch has none.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        size: height and width of the input.
        kernel_size: side of a window, odd; the stride is 1 and the map keeps its size. Or height and width of windows
            that neither overlap nor go beyond the map, whose sides are multiples of them.
        padding_mode: as of `nn.Conv2d`.

    Attributes:
        size: height and width of the output.
        weight: (H W out_channels, in_channels times pixels of a window), a row for each output, position by position.
            Two dimensions, since those of four are reordered with the memory layout of the images.
        bias: one for each output.
    """

    weight: Tensor
    dilation = (1, 1)
    groups = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: tuple[int, int],
        kernel_size: int | tuple[int, int],
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.padding_mode = in_channels, out_channels, padding_mode
        if isinstance(kernel_size, int):
            self.kernel_size, self.stride, self.size = (kernel_size, kernel_size), (1, 1), size
            self.padding = (kernel_size // 2, kernel_size // 2)
        else:
            self.kernel_size, self.stride, self.padding = kernel_size, kernel_size, (0, 0)
            self.size = size[0] // kernel_size[0], size[1] // kernel_size[1]
        num_inputs = in_channels * math.prod(self.kernel_size)
        self.weight = nn.Parameter(torch.empty(math.prod(self.size) * out_channels, num_inputs))
        self.bias = nn.Parameter(torch.empty(len(self.weight)))
        bound = 1 / math.sqrt(num_inputs)  # the law of `nn.Conv2d`
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
            windows_PBK = F.unfold(x_BCHW, self.kernel_size, stride=self.stride).permute(2, 0, 1)
            out_PBO = torch.baddbmm(bias_PIO, windows_PBK, weight_PKO)
        return out_PBO.permute(1, 2, 0).clone(memory_format=torch.contiguous_format).unflatten(2, self.size)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, *size)."""
        return self.of_padded(self.padded(input))
