"""The three kernels of `layers` and `engine.loop.optimizer` next to torch's, alone: ``python kernels.py``.

Batch 64, bf16, channels_last; milliseconds, lower quartile of 15 calls.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.loop.optimizer import MemoryOrder
from layers.convolution import backward_weights, forward_weights, product, windows
from layers.pooling import AvgPool2d

BATCH_SIZE, CALLS = 64, 15


def milliseconds(work: Callable[[], object]) -> float:
    """The lower quartile, after two calls that do not count."""
    seconds = []
    for number in range(CALLS + 2):
        begin = time.perf_counter()
        work()
        if number >= 2:
            seconds.append(time.perf_counter() - begin)
    return 1e3 * sorted(seconds)[CALLS // 4]


def drawn(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Noise in channels_last."""
    return torch.randn(shape).to(dtype).contiguous(memory_format=torch.channels_last)


def passes(in_channels: int, channels: int, side: int) -> dict[str, tuple[float, float]]:
    """Torch's time and the product's, for every pass of a 3x3 convolution."""
    x_BCHW, grad_BOHW = drawn(BATCH_SIZE, in_channels, side, side), drawn(BATCH_SIZE, channels, side, side)
    weight_OCHW = drawn(channels, in_channels, 3, 3) / 50

    def torchs(of_x: bool) -> Callable[[], object]:
        return lambda: torch.ops.aten.convolution_backward(
            grad_BOHW, x_BCHW, weight_OCHW, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [of_x, not of_x, False]
        )

    def of_weight() -> Tensor:
        return grad_BOHW.permute(0, 2, 3, 1).flatten(0, 2).t() @ windows(x_BCHW, (3, 3))

    return {
        "output": (
            milliseconds(lambda: F.conv2d(x_BCHW, weight_OCHW, padding=1)),
            milliseconds(lambda: product(x_BCHW, forward_weights(weight_OCHW), (3, 3), None)),
        ),
        "gradient of weight": (milliseconds(torchs(False)), milliseconds(of_weight)),
        "gradient of input": (
            milliseconds(torchs(True)),
            milliseconds(lambda: product(grad_BOHW, backward_weights(weight_OCHW), (3, 3), None)),
        ),
    }  # fmt: skip


def pool(kind: type[nn.AvgPool2d]) -> float:
    """Forward and backward of a pool from 16x16 to 2x2, 128 channels."""
    x_BCHW, grad_BChw = drawn(BATCH_SIZE, 128, 16, 16).requires_grad_(), torch.randn(BATCH_SIZE, 128, 2, 2).bfloat16()

    def work() -> None:
        x_BCHW.grad = None
        kind(8)(x_BCHW).backward(grad_BChw)

    return milliseconds(work)


def optimizer(in_order: bool) -> float:
    """A step over 9 million weights of VGG11's convolutions."""
    shapes = [(512, 512)] * 3 + [(512, 256), (256, 256), (256, 128)]
    weights = [nn.Parameter(drawn(*shape, 3, 3, dtype=torch.float32)) for shape in shapes]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    sgd = torch.optim.SGD(weights, 0.01, 0.9, weight_decay=5e-4, fused=True)

    def work() -> None:
        if in_order:
            with MemoryOrder():
                sgd.step()
        else:
            sgd.step()

    return milliseconds(work)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    for in_channels, channels, side in [(512, 512, 2), (256, 512, 4), (512, 512, 4), (64, 64, 4), (256, 256, 8)]:
        for name, (theirs, ours) in passes(in_channels, channels, side).items():
            print(f"{in_channels:3} to {channels:3} on {side}x{side}, {name:18} {theirs:6.2f} {ours:6.2f}")
    torch.set_grad_enabled(True)
    print(f"average pool           {pool(nn.AvgPool2d):6.2f} {pool(AvgPool2d):6.2f}")
    print(f"SGD, 9 million weights {optimizer(False):6.2f} {optimizer(True):6.2f}")
