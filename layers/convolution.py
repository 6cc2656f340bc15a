"""A convolution that is a matrix product where the map is tiny, or where windows do not overlap.

On maps of 4x4 and 2x2 pixels oneDNN's bf16 kernels compute the weights' gradient at an eighth to a third of their usual
rate: they vectorise over pixels. A product of matrices has the pixels of all images on one long axis. It is also right
where torch 2.14.1 is not: the bf16 weight gradient of a 5x5 kernel on maps of 1x1, 1x2 and 1x4. ``torch.compile`` was
tried and is slower (docs/performance.md).

Where windows do not overlap, as in `MLP`, whose window is the whole map, torch takes 3 to 90 times as long as the
product, in any type (docs/performance.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

MAX_PIXELS = 16  # of a map whose weight gradient is a product
MAX_PIXELS_OUT = 4  # of a map whose output and input gradient always are; with more, oneDNN is as fast or faster ...
MIN_PAIRS = 128  # ... but for the output with this many pairs of channels to a pixel of the batch


def windows(x_BCHW: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """What a convolution with stride 1 that keeps the map's size sees at every pixel: (B H W, kernel pixels x C)."""
    batch_size, channels, height, width = x_BCHW.shape
    rows, columns = kernel_size
    x_BHWC = x_BCHW.permute(0, 2, 3, 1)
    if kernel_size != (1, 1):
        x_BHWC = F.pad(x_BHWC, (0, 0, columns // 2, columns // 2, rows // 2, rows // 2))
    x_BHWC = x_BHWC.contiguous()
    strides = x_BHWC.stride()
    seen = x_BHWC.as_strided(
        (batch_size, height, width, rows, columns, channels), (*strides[:3], strides[1], strides[2], strides[3])
    )
    return seen.reshape(batch_size * height * width, rows * columns * channels)


def product(x_BCHW: Tensor, weight_KO: Tensor, kernel_size: tuple[int, int], bias_O: Tensor | None) -> Tensor:
    """A convolution with the weights that `windows` meets, (kernel pixels x C, O): (B, O, H, W) in channels_last."""
    shape = (len(x_BCHW), weight_KO.shape[1], *x_BCHW.shape[2:])
    out_BOHW = torch.empty(shape, dtype=x_BCHW.dtype, memory_format=torch.channels_last)  # no view, to be overwritten
    out_PO = out_BOHW.permute(0, 2, 3, 1).view(-1, shape[1])
    if bias_O is None:
        torch.mm(windows(x_BCHW, kernel_size), weight_KO, out=out_PO)
    else:
        torch.addmm(bias_O, windows(x_BCHW, kernel_size), weight_KO, out=out_PO)
    return out_BOHW


def forward_weights(weight_OCHW: Tensor) -> Tensor:
    """What `product` needs for the output; a view where the weights are channels_last."""
    return weight_OCHW.permute(0, 2, 3, 1).flatten(1).t()


def backward_weights(weight_OCHW: Tensor) -> Tensor:
    """What `product` needs for the input's gradient: turned around, from outputs to inputs."""
    return weight_OCHW.flip(2, 3).permute(2, 3, 0, 1).flatten(0, 2)


def _pixels(x_BCHW: Tensor) -> int:
    return x_BCHW.shape[2] * x_BCHW.shape[3]


class SmallConvolution(torch.autograd.Function):
    """A convolution with stride 1 and an odd kernel that keeps the map's size; any type, any number of pixels.

    ``forward(x, weight, bias)`` maps (B, C, H, W), (O, C, h, w) and (O) or None to (B, O, H, W).
    """

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, weight_OCHW: Tensor, bias_O: Tensor | None) -> Tensor:
        """See the class."""
        ctx.save_for_backward(x_BCHW, weight_OCHW)
        pixels, pairs = _pixels(x_BCHW), weight_OCHW.shape[0] * weight_OCHW.shape[1]
        if pixels <= MAX_PIXELS_OUT or pairs >= MIN_PAIRS * len(x_BCHW) * pixels:
            kernel_size = (weight_OCHW.shape[2], weight_OCHW.shape[3])
            return product(x_BCHW, forward_weights(weight_OCHW), kernel_size, bias_O)
        return F.conv2d(x_BCHW, weight_OCHW, bias_O, padding=(weight_OCHW.shape[2] // 2, weight_OCHW.shape[3] // 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BOHW: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of what needs one."""
        x_BCHW, weight_OCHW = ctx.saved_tensors
        rows, columns = weight_OCHW.shape[2:]
        of_x, of_weight, of_bias = None, None, None
        if ctx.needs_input_grad[0] and _pixels(x_BCHW) <= MAX_PIXELS_OUT:
            of_x = product(grad_BOHW, backward_weights(weight_OCHW), (rows, columns), None)
        elif ctx.needs_input_grad[0]:
            padding = [rows // 2, columns // 2]
            of_x = torch.ops.aten.convolution_backward(
                grad_BOHW, x_BCHW, weight_OCHW, None, [1, 1], padding, [1, 1], False, [0, 0], 1, [True, False, False]
            )[0]
        grad_PO = grad_BOHW.permute(0, 2, 3, 1).flatten(0, 2)
        if ctx.needs_input_grad[1]:
            of_weight = (grad_PO.t() @ windows(x_BCHW, (rows, columns))).unflatten(1, (rows, columns, -1))
            of_weight = of_weight.permute(0, 3, 1, 2)
        if ctx.needs_input_grad[2]:
            of_bias = grad_PO.sum(0)
        return of_x, of_weight, of_bias


def tiled(x_BCHW: Tensor, weight_OCHW: Tensor, bias_O: Tensor | None) -> Tensor:
    """A convolution whose stride is its kernel's size, which divides the map's: (B, O, H / rows, W / columns)."""
    batch_size, channels, height, width = x_BCHW.shape
    rows, columns = weight_OCHW.shape[2:]
    x_BHWC = x_BCHW.permute(0, 2, 3, 1)
    tiles = x_BHWC.reshape(batch_size, height // rows, rows, width // columns, columns, channels).transpose(2, 3)
    return F.linear(tiles.flatten(3), weight_OCHW.permute(0, 2, 3, 1).flatten(1), bias_O).permute(0, 3, 1, 2)


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`; where windows do not overlap a matrix product, and on a CPU in bf16 on tiny maps."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, H, W) to the convolution's output."""
        if not self._is_small(input):
            return tiled(input, self.weight, self.bias) if self._is_tiled(input) else super().forward(input)
        bias = None if self.bias is None else self.bias.to(torch.bfloat16)
        return SmallConvolution.apply(input.to(torch.bfloat16), self.weight.to(torch.bfloat16), bias)

    def _is_small(self, input: Tensor) -> bool:
        in_bf16 = (
            input.device.type == "cpu"
            and (torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype) is torch.bfloat16
        )
        keeps_size = self.padding == tuple(size // 2 for size in self.kernel_size)
        is_plain = self.stride == self.dilation == (1, 1) and self.groups == 1 and self.padding_mode == "zeros"
        is_odd = all(size % 2 for size in self.kernel_size)
        return in_bf16 and _pixels(input) <= MAX_PIXELS and keeps_size and is_plain and is_odd

    def _is_tiled(self, input: Tensor) -> bool:
        sides = (input.shape[2], input.shape[3])
        divides = all(side % size == 0 for side, size in zip(sides, self.kernel_size, strict=True))
        is_plain = self.padding == (0, 0) and self.dilation == (1, 1) and self.groups == 1
        sees_more = self.kernel_size == sides or max(self.kernel_size) > 1  # a pixel of many is left to torch
        return is_plain and divides and sees_more and self.stride == self.kernel_size
