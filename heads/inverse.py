"""Inverses: from what a block gives out back to what it took in, with weights of their own."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from layers.dropout import Dropout
from layers.local import LocallyConnected2d, transposed
from model import ACTIVATIONS, Block, Shape, layers_of
from utils import UsageError

Weights = Sequence[Tensor]  # weight and, where the inverse has one, bias


class Seen(NamedTuple):
    """What a block gave out in a forward pass, and which pixels its max-pool chose (None without one)."""

    out_BCHW: Tensor
    chosen_BCHW: Tensor | None


def run(block: Block, x_BCHW: Tensor) -> Seen:
    """What ``block`` makes of its input, with the pixels that its max-pool chooses."""
    chosen_BCHW = None
    for layer in layers_of(block):
        if isinstance(layer, nn.MaxPool2d):
            x_BCHW, chosen_BCHW = F.max_pool2d(
                x_BCHW, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode, True
            )
        else:
            x_BCHW = layer(x_BCHW)
    return Seen(x_BCHW, chosen_BCHW)


class BlockInverse(nn.Module):
    """The layers of a block in reverse order: max-unpool, activation, transposed convolution with its own weights.

    The unpool puts every value where the forward pass found the maximum. The activation is the block's own; where it is
    ReLU, a unit that was silent stays silent, as it has no gradient either. BatchNorm and dropout have no counterpart:
    their scale is learned with the weights.

    Args:
        block: what is inverted; nothing of it is kept.
        in_shape: of its input.
        where: how to call it in messages.
        bias: whether one is added to every channel.

    Attributes:
        fan_in: values of `spread` that a pixel of the result is a sum of.

    Raises:
        UsageError: the block is not a convolution, an activation and perhaps a max-pool, in this order.
    """

    def __init__(self, block: Block, in_shape: Shape, where: str, bias: bool = True) -> None:
        super().__init__()
        layers = [each for each in layers_of(block) if not isinstance(each, _BatchNorm | nn.Dropout | Dropout)]
        kinds: list[Any] = [nn.Conv2d | LocallyConnected2d, ACTIVATIONS, nn.MaxPool2d][: len(layers)]
        fits = [isinstance(layer, kind) for layer, kind in zip(layers, kinds, strict=False)]
        if len(layers) not in (2, 3) or not all(fits):
            raise UsageError(
                f"{where} cannot be inverted: it is {' - '.join(type(each).__name__ for each in layers)}, and not a "
                "convolution (perhaps with BatchNorm), an activation "
                f"({', '.join(kind.__name__ for kind in ACTIVATIONS)}) and perhaps a max-pool"
            )
        convolution = layers[0]
        assert isinstance(convolution, nn.Conv2d | LocallyConnected2d)
        self.in_shape, self.has_gate = in_shape, isinstance(layers[1], nn.ReLU)
        self.activation = copy.deepcopy(layers[1])
        self.geometry = _Geometry.of(convolution, in_shape, where)
        self.weight = nn.Parameter(torch.empty_like(convolution.weight))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # the law of the forward weights
        self.bias = nn.Parameter(torch.zeros(in_shape.channels)) if bias else None
        reach, strides = math.prod(convolution.kernel_size), math.prod(self.geometry.stride)
        self.fan_in = convolution.out_channels * reach / strides / self.geometry.groups
        self.local: tuple[tuple[int, int], ...] | None = None
        if isinstance(convolution, LocallyConnected2d):
            self.local = (convolution.kernel_size, convolution.stride, convolution.padding)

    @property
    def weights(self) -> Weights:
        """The parameters, in the order in which `forward` takes them."""
        return [*self.parameters()]

    def spread(self, u_BCHW: Tensor, seen: Seen) -> Tensor:
        """What the transposed convolution sees for ``u``, which stands in place of the block's output."""
        silent_BCHW = (seen.out_BCHW <= 0) if self.has_gate else None
        u_BCHW = self.activation(u_BCHW.clone())  # which may work in place
        if silent_BCHW is not None:
            u_BCHW = u_BCHW.masked_fill(silent_BCHW, 0)
        if seen.chosen_BCHW is None:
            return u_BCHW
        shape = (*u_BCHW.shape[:2], *self.geometry.out_size)
        flat_BCP = u_BCHW.new_zeros(*shape[:2], shape[2] * shape[3])
        return flat_BCP.scatter_add(2, seen.chosen_BCHW.flatten(2), u_BCHW.flatten(2)).view(shape)

    def forward(self, v_BCHW: Tensor, weights: Weights) -> Tensor:
        """Map what `spread` gives to a map like the block's input, with ``weights`` in place of the parameters."""
        at, bias = self.geometry, weights[1] if len(weights) > 1 else None
        if self.local is not None:
            x_BCHW = transposed(v_BCHW, weights[0], *self.local)
            return x_BCHW if bias is None else x_BCHW + bias.view(-1, 1, 1)
        if at.wrap != (0, 0):
            (rows, columns), v_BCHW = at.wrap, F.pad(v_BCHW, (at.wrap[1],) * 2 + (at.wrap[0],) * 2, mode="circular")
            padding: tuple[int, ...] = (2 * rows, 2 * columns)
        else:
            padding = at.padding
        return F.conv_transpose2d(v_BCHW, weights[0], bias, at.stride, padding, at.missing, at.groups, at.dilation)


class OutputInverse(nn.Module):
    """From what the network puts out to the last block's output: a linear map, then that block's activation.

    Args:
        num_inputs: numbers that it sees of an image.
        block: the last one.
    """

    def __init__(self, num_inputs: int, block: Block) -> None:
        super().__init__()
        linear = nn.Linear(num_inputs, block.out_shape.num_features)
        self.weight, self.bias, self.shape = linear.weight, linear.bias, block.out_shape
        known = [layer for layer in layers_of(block) if isinstance(layer, ACTIVATIONS)]
        self.activation = copy.deepcopy(known[-1]) if known else nn.Identity()

    @property
    def weights(self) -> Weights:
        """The parameters, in the order in which `forward` takes them."""
        return [self.weight, self.bias]

    def forward(self, o_BN: Tensor, weights: Weights) -> Tensor:
        """Map (B, num_inputs) to (B, C, H, W), with ``weights`` in place of the parameters."""
        return self.activation(F.linear(o_BN, *weights)).unflatten(1, self.shape)


class _Geometry(NamedTuple):
    """How a transposed convolution undoes the sizes of a convolution.

    ``missing`` are rows and columns that a stride leaves out at the end, ``wrap`` what circular padding puts around.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    out_size: tuple[int, ...]
    missing: tuple[int, ...]
    wrap: tuple[int, int]

    @classmethod
    def of(cls, layer: nn.Conv2d | LocallyConnected2d, in_shape: Shape, where: str) -> _Geometry:
        """Those of ``layer`` on maps of ``in_shape``.

        Raises:
            UsageError: it pads otherwise than with zeros, or in a circle so that the map keeps its size.
        """
        refusal = UsageError(f"{where} cannot be inverted: give its convolution a number of zeros to pad with")
        if isinstance(layer.padding, str):
            raise refusal
        keeps = all(size == 2 * pad + 1 for size, pad in zip(layer.kernel_size, layer.padding, strict=True))
        may_wrap = isinstance(layer, nn.Conv2d) and layer.stride == layer.dilation == (1, 1)
        wraps = layer.padding_mode == "circular" and keeps and may_wrap
        if layer.padding_mode != "zeros" and not wraps:
            raise refusal
        reach = [step * (size - 1) + 1 for step, size in zip(layer.dilation, layer.kernel_size, strict=True)]
        padded = [side + 2 * pad for side, pad in zip(in_shape[1:], layer.padding, strict=True)]
        left = [side - span for side, span in zip(padded, reach, strict=True)]
        return cls(
            layer.stride, layer.padding, layer.dilation, layer.groups,
            tuple(rest // step + 1 for rest, step in zip(left, layer.stride, strict=True)),
            tuple(rest % step for rest, step in zip(left, layer.stride, strict=True)),
            (layer.padding[0], layer.padding[1]) if wraps else (0, 0),
        )  # fmt: skip
