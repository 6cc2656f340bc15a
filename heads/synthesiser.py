"""Synthesisers of DNI: of the gradient at a block's output, from that output; of a block's input, from the image."""

from __future__ import annotations

from torch import Tensor, nn

from layers.one_hot import one_hot
from layers.pooling import AvgPool2d
from model import Shape
from utils import UsageError


class Synthesiser(nn.Module):
    """Conv 5x5 (+ context) - BN - ReLU - Conv 5x5 - BN - ReLU - Conv 5x5, the shape preserved (AlonNT/Thesis).

    The first two convolutions and the context have no bias: the BatchNorm behind them would subtract it. On maps with a
    side of one or two pixels, the weights of the 5x5 kernel that would only meet padding are left out; the function is
    the same.

    Args:
        shape: of the map; the hidden layers have as many channels.
        num_context_classes: with a positive number, a linear map of the one-hot label is added to every position of
            the first convolution's output, before its BatchNorm.
    """

    def __init__(self, shape: Shape, num_context_classes: int = 0) -> None:
        super().__init__()
        self.num_context_classes = num_context_classes
        self.first = _convolution(shape, shape, bias=False)
        last = _convolution(shape, shape, bias=True)
        # Weight and bias: an untrained synthesiser must predict a gradient of zero, not a random one.
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.rest = _rest(shape, last)
        self.context = nn.Linear(num_context_classes, shape.channels, bias=False) if num_context_classes else None

    def forward(self, h_BCHW: Tensor, y_B: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape; the labels are read only with a context."""
        x_BCHW = self.first(h_BCHW)
        if self.context is not None:
            onehot_BN = one_hot(y_B, self.num_context_classes).to(h_BCHW.dtype)
            x_BCHW = x_BCHW + self.context(onehot_BN)[:, :, None, None]
        return self.rest(x_BCHW)


class InputSynthesiser(nn.Module):
    """From the image to an estimate of a deeper map: a `Synthesiser` whose first convolution reads the image.

    Its output is averaged over tiles down to the map's resolution. The last convolution starts as torch draws it: a map
    of zeros would be no input to learn from.

    Args:
        image: shape of the images.
        shape: of the map; the hidden layers have as many channels.
    """

    def __init__(self, image: Shape, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        if shape.height > image.height or shape.width > image.width:
            raise UsageError(
                f"a synthetic input of {shape.height}x{shape.width} pixels cannot be made from images of "
                f"{image.height}x{image.width}"
            )
        self.first = _convolution(image, shape, bias=False)
        self.pool = AvgPool2d((image.height // shape.height, image.width // shape.width))
        self.rest = _rest(shape, _convolution(shape, shape, bias=True))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, *image) to (B, *shape); tiles beyond the map's last row and column are left out."""
        return self.rest(self.pool(self.first(x_BCHW))[:, :, : self.shape.height, : self.shape.width])


def _rest(shape: Shape, last: nn.Conv2d) -> nn.Sequential:
    """What follows the first convolution, up to the ``last`` one."""
    return nn.Sequential(
        nn.BatchNorm2d(shape.channels),
        nn.ReLU(inplace=True),
        _convolution(shape, shape, bias=False),
        nn.BatchNorm2d(shape.channels),
        nn.ReLU(inplace=True),
        last,
    )


def _convolution(source: Shape, target: Shape, bias: bool) -> nn.Conv2d:
    """5x5 on maps of ``source``, to the channels of ``target``, without weights that would meet padding everywhere.

    They would be wasted, and torch 2.14 on the CPU fills their bfloat16 gradient with arbitrary memory.
    """
    reach_H, reach_W = min(2, source.height - 1), min(2, source.width - 1)
    kernel = (2 * reach_H + 1, 2 * reach_W + 1)
    return nn.Conv2d(source.channels, target.channels, kernel, padding=(reach_H, reach_W), bias=bias)
