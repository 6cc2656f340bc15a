"""Which operations a CUDA graph can hold, asked while a step runs and before it is captured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Whether a result's size depends on values is a property of these by their arguments, whatever their tags say.
_INDEXING = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default)
_SIZED = (torch.ops.aten.repeat_interleave.Tensor,)


class OnlyCapturable(TorchDispatchMode):
    """Raises at the first operation that a CUDA graph cannot hold, or that would keep a value of the host in it.

    Works on tensors of any device, also on meta tensors, which have no values. After a capture that failed torch 2.11
    cannot free memory any more (its allocator still assumes a running capture, pytorch#180395); hence it is asked
    before.

    Args:
        device: where the step runs.

    Raises:
        RuntimeError: inside; it names the operation.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Check, then compute."""
        if reason := self._obstacle(func, args, kwargs or {}):
            raise RuntimeError(f"{func} {reason}")
        return func(*args, **(kwargs or {}))

    def _obstacle(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Why a graph cannot hold the operation, or an empty string."""
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if func is torch.ops.aten.lift_fresh.default:
            return "makes a tensor of a number of the host"
        if torch.Tag.data_dependent_output in func.tags:
            return "waits for a value from the device"
        if _has_dynamic_shape(func, args, kwargs):
            return "gives a result whose size depends on values"
        places = {tensor.device.type for tensor in tensors} | {torch.device(kwargs.get("device") or self._device).type}
        if self._device.type != "meta":
            places.discard("meta")  # from which torch learns a shape; a GPU has nothing to do there
        if len(places) > 1:
            return f"uses tensors on {' and '.join(sorted(places))}"
        return ""


def _has_dynamic_shape(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if func in _INDEXING:
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    if func in _SIZED:
        return kwargs.get("output_size") is None
    return torch.Tag.dynamic_output_shape in func.tags
