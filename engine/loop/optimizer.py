"""The optimiser: one for all blocks, with one or more parameter groups for each block."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from consts import block_name
from methods._base import Method
from schemas import OptimArgs


def build_optimizer(args: OptimArgs, method: Method) -> torch.optim.Optimizer:
    """The optimiser of torch of that name, in its fused form where it has one: one pass over the parameters.

    One optimiser per block would give the same weights; Lightning's step counter would then count blocks.
    """
    groups = method.param_groups()
    scale_blocks(groups, args.first_rate_scale)
    if args.optimizer_type == "Rprop":
        return torch.optim.Rprop(groups, lr=args.learning_rate)
    if args.optimizer_type in ("SGD", "SignSGD"):
        kind = torch.optim.SGD if args.optimizer_type == "SGD" else SignSGD
        return kind(
            groups, lr=args.learning_rate, momentum=args.momentum, nesterov=args.nesterov,
            weight_decay=args.weight_decay, fused=True,
        )  # fmt: skip
    adaptive = torch.optim.Adam if args.optimizer_type == "Adam" else torch.optim.AdamW
    return adaptive(groups, lr=args.learning_rate, weight_decay=args.weight_decay, fused=True)


class SignSGD(torch.optim.SGD):
    """SGD in which the sign of every gradient stands for it, before momentum and weight decay.

    Bernstein et al. 2018, arXiv 1802.04434; with momentum, "batch manhattan" of Liao et al. 2016, arXiv 1510.05067. A
    factor on the gradients changes nothing.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step; the gradients become their signs."""
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        if gradients:
            torch._foreach_sign_(gradients)
        return super().step(closure)


def scale_blocks(groups: Sequence[dict[str, Any]], first: float) -> None:
    """Give the first block's groups the factor ``first`` on the rate, the last's 1, geometrically in between."""
    blocks = list(dict.fromkeys(map(block_of, groups)))
    for group in groups if first != 1 else ():
        share = blocks.index(block_of(group)) / max(len(blocks) - 1, 1)
        group["rate_scale"] = group.get("rate_scale", 1.0) * first ** (1 - share)


class MemoryOrder(TorchDispatchMode):
    """Passes channels_last tensors to the fused optimiser kernels of a CPU as contiguous views.

    The kernels work on contiguous tensors only, and copy weights, gradients and buffers that are channels_last: over
    half of the optimiser's time on a VGG. The results are the same.
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


def optimizer_of(optimizer: torch.optim.Optimizer, blocks: range) -> torch.optim.Optimizer:
    """A view with the parameter groups of ``blocks`` only; it shares the optimiser's state."""
    view, names = copy.copy(optimizer), {block_name(index) for index in blocks}
    view.param_groups = [group for group in optimizer.param_groups if block_of(group) in names]
    return view


def block_of(group: Mapping[str, Any]) -> str:
    """The block of a parameter group: ``block_03`` for the groups ``block_03`` and ``block_03/critic``."""
    name: str = group["name"]
    return name.partition("/")[0]


def rate_dtype(device: torch.device) -> torch.dtype:
    """The type of a learning rate, whether the optimiser gets a number or a tensor.

    A GPU's fused kernels take a tensor in float32 only; a number they take in float64.
    """
    return torch.float32 if device.type == "cuda" else torch.float64


def set_rate(optimizer: torch.optim.Optimizer, rate: float | Tensor) -> None:
    """Give every parameter group the learning rate ``rate`` times its ``rate_scale`` (1 where it has none)."""
    for group in optimizer.param_groups:
        group["lr"] = _scaled(rate, group)


def _scaled(rate: float | Tensor, group: Mapping[str, Any]) -> float | Tensor:
    """The group's learning rate, rounded to `rate_dtype`: the same value from a number as from a tensor."""
    scale: float = group.get("rate_scale", 1.0)
    if scale == 1:
        return rate
    if isinstance(rate, Tensor):
        return rate * scale
    return (torch.tensor(rate, dtype=rate_dtype(group["params"][0].device)) * scale).item()


def update(optimizer: torch.optim.Optimizer, rate: float | Tensor, gradient_clip: float) -> None:
    """Take a step with the current gradients, clipped to a norm for each block if set, and drop them."""
    set_rate(optimizer, rate)
    if gradient_clip > 0:
        blocks: dict[str, list[Tensor]] = {}
        for group in optimizer.param_groups:
            blocks.setdefault(block_of(group), []).extend(group["params"])
        for parameters in blocks.values():
            nn.utils.clip_grad_norm_(parameters, gradient_clip)
    with MemoryOrder():
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def load_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load what `Optimizer.state_dict` gave; the scales stay as they are, since older checkpoints hold none.

    Raises:
        ValueError: it belongs to other parameters; torch itself only counts them.
    """
    scales = [group.get("rate_scale") for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, scale in zip(optimizer.param_groups, scales, strict=True):
        if scale is not None:
            group["rate_scale"] = scale
    for parameter, entry in optimizer.state.items():
        for name, value in entry.items():
            if isinstance(value, Tensor) and value.dim() and value.shape != parameter.shape:
                raise ValueError(
                    f"the optimiser's {name} has shape {[*value.shape]}, the parameter {[*parameter.shape]}"
                )
