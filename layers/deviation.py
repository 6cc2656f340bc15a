"""Standard deviations over the pixels of a map, in one pass over a part of the batch at a time.

`torch.std` was tried: on a CPU its forward pass (Welford's recurrence, which does not vectorise here) takes five times
as long, and for a map in bf16 a copy of it in float32 is kept until the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_NUMBERS = 2**19  # of a part: small enough to stay in a core's cache


def _parts(x_BPC: Tensor) -> Iterator[slice]:
    size = max(1, _NUMBERS // max(1, x_BPC[0].numel()))
    return (slice(first, first + size) for first in range(0, len(x_BPC), size))


def _wide(x: Tensor) -> Tensor:
    """In float32 or wider, and never the tensor itself."""
    return x.to(torch.promote_types(x.dtype, torch.float32), copy=True)


def _pixels(x_BCHW: Tensor) -> Tensor:
    return x_BCHW.permute(0, 2, 3, 1).flatten(1, 2)


class _Deviation(torch.autograd.Function):
    """``forward(x)`` maps (B, C, H, W) to (B, C), in float32 or wider."""

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor) -> Tensor:
        """Two passes: the mean first, then the length of what is left."""
        x_BPC, means, lengths = _pixels(x_BCHW), [], []
        for part in _parts(x_BPC):
            wide_bPC = _wide(x_BPC[part])
            means.append(wide_bPC.mean(1))
            wide_bPC -= means[-1][:, None]
            lengths.append(torch.linalg.vector_norm(wide_bPC, dim=1))
        deviation_BC = torch.cat(lengths) / (x_BPC.shape[1] - 1) ** 0.5
        ctx.save_for_backward(x_BCHW, torch.cat(means), deviation_BC)
        return deviation_BC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BC: Tensor) -> Tensor:
        """``(x - mean) / ((P - 1) deviation)``; 0, as torch's, where all pixels are equal."""
        x_BCHW, mean_BC, deviation_BC = ctx.saved_tensors
        of_x_BCHW = torch.empty_like(x_BCHW, memory_format=torch.channels_last)
        x_BPC, of_x_BPC = _pixels(x_BCHW), _pixels(of_x_BCHW)
        factor_BC = (grad_BC / (deviation_BC * (x_BPC.shape[1] - 1))).masked_fill(deviation_BC == 0, 0)
        for part in _parts(x_BPC):
            wide_bPC = _wide(x_BPC[part])
            wide_bPC -= mean_BC[part, None]
            of_x_BPC[part] = wide_bPC.mul_(factor_BC[part, None])
        return of_x_BCHW


def deviation(x_BCHW: Tensor) -> Tensor:
    """The unbiased standard deviation over the pixels of every channel: (B, C), in float32 or wider."""
    if x_BCHW.device.type != "cpu":
        return _wide(x_BCHW).std((2, 3))
    return _Deviation.apply(x_BCHW)
