"""The optimiser: one for all blocks, a named group each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from methods._base import Method
from schemas import OptimArgs


def build_optimizer(args: OptimArgs, method: Method) -> torch.optim.Optimizer:
    """The optimiser of torch of that name, in its fused form: one pass over the parameters.

    One optimiser per block would give the same weights; Lightning's step counter would then count blocks.
    """
    groups = method.param_groups()
    if args.optimizer_type == "SGD":
        return torch.optim.SGD(
            groups, lr=args.learning_rate, momentum=args.momentum, nesterov=args.nesterov,
            weight_decay=args.weight_decay, fused=True,
        )  # fmt: skip
    kind = torch.optim.Adam if args.optimizer_type == "Adam" else torch.optim.AdamW
    return kind(groups, lr=args.learning_rate, weight_decay=args.weight_decay, fused=True)


def rate_dtype(device: torch.device) -> torch.dtype:
    """The type of a learning rate, the same whether the optimiser reads a number or a tensor.

    Fused kernels of a GPU take the tensor in float32 only; a number they take in float64.
    """
    return torch.float32 if device.type == "cuda" else torch.float64


def set_rate(optimizer: torch.optim.Optimizer, rate: float | Tensor) -> None:
    """Give every group the learning rate ``rate``."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def update(optimizer: torch.optim.Optimizer, rate: float | Tensor, gradient_clip: float) -> None:
    """Take a step with the gradients that are there, clipped group by group where asked, and drop them."""
    set_rate(optimizer, rate)
    if gradient_clip > 0:
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], gradient_clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
