"""The optimiser: one for all blocks, a named group each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

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


class MemoryOrder(TorchDispatchMode):
    """Inside it, a fused kernel on a CPU is given convolutions' weights in the order in which they lie in memory.

    It goes through contiguous tensors only, and copies weights, gradients and buffers that are channels_last: over half
    of the optimiser's time on a VGG. What it computes is the same.
    """

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in _FUSED:
            last = [_is_channels_last(parameter) for parameter in args[0]]
            args = [_in_memory_order(value, last) if isinstance(value, list) else value for value in args]
        return function(*args, **(kwargs or {}))


_FUSED = (torch.ops.aten._fused_sgd_.default, torch.ops.aten._fused_adam_.default, torch.ops.aten._fused_adamw_.default)


def _is_channels_last(value: Tensor) -> bool:
    return value.device.type == "cpu" and value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last)


def _in_memory_order(values: list[Tensor], last: list[bool]) -> list[Tensor]:
    """Tensors of one kind, one for each parameter; a step count has no order."""
    return [
        value.permute(0, 2, 3, 1) if is_last and value.dim() == 4 else value
        for value, is_last in zip(values, last, strict=len(values) > 0)
    ]


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
    with MemoryOrder():
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
