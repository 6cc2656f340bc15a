"""Synthesisers of DNI: from a block's output, and perhaps the label, to an estimate of the gradient there."""

from __future__ import annotations

from torch import Tensor, nn

from layers.one_hot import one_hot
from model import Shape


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
        self.first = _convolution(shape, bias=False)
        last = _convolution(shape, bias=True)
        # Weight and bias: an untrained synthesiser must predict a gradient of zero, not a random one.
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.rest = nn.Sequential(
            nn.BatchNorm2d(shape.channels),
            nn.ReLU(inplace=True),
            _convolution(shape, bias=False),
            nn.BatchNorm2d(shape.channels),
            nn.ReLU(inplace=True),
            last,
        )
        self.context = nn.Linear(num_context_classes, shape.channels, bias=False) if num_context_classes else None

    def forward(self, h_BCHW: Tensor, y_B: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape; the labels are read only with a context."""
        x_BCHW = self.first(h_BCHW)
        if self.context is not None:
            onehot_BN = one_hot(y_B, self.num_context_classes).to(h_BCHW.dtype)
            x_BCHW = x_BCHW + self.context(onehot_BN)[:, :, None, None]
        return self.rest(x_BCHW)


def _convolution(shape: Shape, bias: bool) -> nn.Conv2d:
    """5x5, without the weights that would meet padding at every position of the map.

    They would be wasted, and torch 2.14 on the CPU fills their bfloat16 gradient with arbitrary memory.
    """
    reach_H, reach_W = min(2, shape.height - 1), min(2, shape.width - 1)
    kernel = (2 * reach_H + 1, 2 * reach_W + 1)
    return nn.Conv2d(shape.channels, shape.channels, kernel, padding=(reach_H, reach_W), bias=bias)
