"""What this machine can do at best: the roof under which every training step stays."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.peers._common import network

_SIDE = 1024
_BATCH, _CHANNELS, _PIXELS, _KERNEL = 64, 128, 16, 5  # the second convolution of BasicCNN


def _rate(work: Callable[[], object], amount: float, repeats: int = 3) -> float:
    work()
    begin = time.perf_counter()
    for _ in range(repeats):
        work()
    return amount * repeats / (time.perf_counter() - begin)


def measure() -> dict[str, float]:
    """Operations per second of matmul and convolution (multiply-add is two), bytes per second of a copy."""
    a, b = (torch.randn(_SIDE, _SIDE, dtype=torch.bfloat16) for _ in range(2))
    x = torch.randn(_BATCH, _CHANNELS, _PIXELS, _PIXELS).bfloat16().to(memory_format=torch.channels_last)
    weight = torch.randn(_CHANNELS, _CHANNELS, _KERNEL, _KERNEL).bfloat16().to(memory_format=torch.channels_last)
    convolution = 2 * x.numel() * _CHANNELS * _KERNEL**2
    source = torch.randn(2**24)
    target = torch.empty_like(source)
    with torch.no_grad():
        return {
            "matmul_bf16": _rate(lambda: a @ b, 2 * _SIDE**3),
            "conv_bf16": _rate(lambda: F.conv2d(x, weight, padding=_KERNEL // 2), convolution),
            "conv_fp32": _rate(lambda: F.conv2d(x.float(), weight.float(), padding=_KERNEL // 2), convolution),
            "copy": _rate(lambda: target.copy_(source), 2 * source.nbytes),
        }


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
