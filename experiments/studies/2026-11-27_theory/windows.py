"""Convolutions whose windows do not overlap, torch's and ours: ``OMP_NUM_THREADS=1 python .../windows.py``.

Forward and backward pass, gradients of input and weights, batch 128, channels_last; milliseconds, the lower quartile
of 15 calls of each in turn.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

import torch
from torch import nn

from layers.convolution import Conv2d

BATCH_SIZE, CALLS = 128, 15
CASES = {  # input channels, side, side of the window, units
    "MLP, first layer, 32x32 RGB": (3, 32, 32, 512),
    "MLP, first layer, 32x32 grey": (1, 32, 32, 512),
    "MLP, later layer": (512, 1, 1, 512),
    "TreeCNN, first layer, 32x32 grey": (1, 32, 2, 64),
    "TreeCNN, second layer": (64, 16, 2, 64),
}


def milliseconds(layers: Sequence[nn.Module], shape: tuple[int, ...], dtype: torch.dtype) -> list[float]:
    """The lower quartile of each, after two calls that do not count."""
    x_BCHW = torch.randn(shape).contiguous(memory_format=torch.channels_last).requires_grad_()
    seconds: list[list[float]] = [[] for _ in layers]
    for number in range(CALLS + 2):
        for place, layer in enumerate(layers):
            begin = time.perf_counter()
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                out_BOHW = layer(x_BCHW)
            out_BOHW.sum().backward()
            if number >= 2:
                seconds[place].append(time.perf_counter() - begin)
    return [1e3 * sorted(found)[CALLS // 4] for found in seconds]


def main() -> None:
    """Print a line for each case and type."""
    print(f"{'':42}{'torch':>8}{'ours':>8}{'ratio':>7}")
    for name, (channels, side, size, units) in CASES.items():
        for dtype in (torch.float32, torch.bfloat16):
            layers = [kind(channels, units, size, stride=size) for kind in (nn.Conv2d, Conv2d)]
            layers = [layer.to(memory_format=torch.channels_last) for layer in layers]
            torchs, ours = milliseconds(layers, (BATCH_SIZE, channels, side, side), dtype)
            kind = "fp32" if dtype == torch.float32 else "bf16"
            print(f"{name + ', ' + kind:42}{torchs:8.2f}{ours:8.2f}{torchs / ours:7.1f}")


if __name__ == "__main__":
    main()
