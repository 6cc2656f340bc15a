"""The highest rates that a device reaches in single operations: no training step can be faster than they allow."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.engine import CPU
from benchmarks.peers.shared import network
from benchmarks.timing import Work, seconds

_BATCH, _CHANNELS, _PIXELS, _KERNEL = 64, 128, 16, 5  # the second convolution of BasicCNN
_REPEATS = 3


class Calibration:
    """Some operations on a device, and how much each does: floating-point operations, or the bytes of a copy."""

    def __init__(self, device: torch.device = CPU, side: int = 1024, num_floats: int = 2**24) -> None:
        a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
        x = torch.randn(_BATCH, _CHANNELS, _PIXELS, _PIXELS, device=device)
        weight = torch.randn(_CHANNELS, _CHANNELS, _KERNEL, _KERNEL, device=device)
        x, weight = (value.to(memory_format=torch.channels_last) for value in (x, weight))
        x_bf16, weight_bf16 = x.bfloat16(), weight.bfloat16()
        source, target = (torch.randn(num_floats, device=device) for _ in range(2))
        convolution = 2 * x.numel() * _CHANNELS * _KERNEL**2  # a multiply-add is two operations
        self._device = device
        self._operations: dict[str, tuple[Work, float]] = {
            "matmul_bf16": (lambda: a @ b, 2 * side**3),
            "conv_bf16": (lambda: F.conv2d(x_bf16, weight_bf16, padding=_KERNEL // 2), convolution),
            "conv_fp32": (lambda: F.conv2d(x, weight, padding=_KERNEL // 2), convolution),
            "copy": (lambda: target.copy_(source), 2 * source.nbytes),
        }

    def measure(self) -> dict[str, float]:
        """Operations or bytes per second, by name."""
        rates = {}
        for name, (work, amount) in self._operations.items():
            work()
            rates[name] = amount / min(seconds(work, self._device) for _ in range(_REPEATS))
        return rates


def flops_per_image(model: str, method: str) -> float:
    """Operations of convolutions and linear layers in a training step, over the batch; ``method`` is bp or dgl."""
    blocks, heads = network(model)
    x_BCHW, y_B = torch.randn(2, 3, 32, 32), torch.zeros(2, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        for block, head in zip(blocks, heads, strict=True):
            x_BCHW = block(x_BCHW if method == "bp" else x_BCHW.detach())
            if method == "dgl" or block is blocks[-1]:
                F.cross_entropy(head(x_BCHW), y_B).backward()
    return counter.get_total_flops() / len(y_B)
