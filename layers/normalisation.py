"""BatchNorm over a batch that several processes share, and in passes that leave its running statistics alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

Mean = Callable[[Tensor], Tensor]


class _MeanOfAll(torch.autograd.Function):
    """A mean over the replicas. What is differentiated is the sum of their losses, so its gradient is that mean too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, mean: Mean) -> Tensor:
        """Return ``mean(value)``."""
        ctx.mean = mean
        return mean(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The mean of the gradients."""
        return _MeanOfAll.apply(grad, ctx.mean), None

    @staticmethod
    def jvp(ctx: Any, moved: Tensor, _: None) -> Tensor:
        """The forward-mode derivative: the mean of the tangents."""
        return _MeanOfAll.apply(moved, ctx.mean)


class SharedStatistics(TorchFunctionMode):
    """Inside, every BatchNorm in training has the mean and the variance of the images of all replicas.

    Averaged over the replicas, gradients and running statistics are then those of one process with the whole batch.
    torch's `SyncBatchNorm` does not do: it refuses tensors of a CPU, and its layers would wait for the others wherever
    the network runs, also where one process measures alone. Scripted and compiled layers are not reached.

    Args:
        mean: gives the mean of a tensor over the replicas; all of them call it equally often, in the same order.
        num_replicas: how many they are; each has as many images.
    """

    def __init__(self, mean: Mean, num_replicas: int) -> None:
        super().__init__()
        self._mean, self._num_replicas = mean, num_replicas

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace `torch.nn.functional.batch_norm`, through which all layers of that kind go, and nothing else."""
        return (self._batch_norm if func is F.batch_norm else func)(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """Batch normalisation of (B, C, ...) with the arguments of torch's function; inside in float32 or wider."""
        if not training:
            return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        wide = input.float() if input.dtype.itemsize < 4 else input
        own_var_C, own_mean_C = torch.var_mean(wide, [axis for axis in range(input.dim()) if axis != 1], correction=0)
        mean_C: Tensor = _MeanOfAll.apply(own_mean_C, self._mean)
        var_C: Tensor = _MeanOfAll.apply(own_var_C + (own_mean_C - mean_C).square(), self._mean)
        if running_mean is not None and running_var is not None:
            count = input.numel() // input.shape[1] * self._num_replicas
            running_mean.lerp_(mean_C.detach(), momentum)
            running_var.lerp_(var_C.detach() * (count / (count - 1)), momentum)
        scale_C = (var_C + eps).rsqrt() * (1 if weight is None else weight)
        shift_C = (0 if bias is None else bias) - mean_C * scale_C
        shape = (-1, *(1,) * (input.dim() - 2))
        # Only the input is kept for the backward pass, beside vectors of C values.
        return torch.addcmul(shift_C.view(shape), wide, scale_C.view(shape)).to(input.dtype)


@contextlib.contextmanager
def untracked(*modules: nn.Module) -> Iterator[None]:
    """Inside, every BatchNorm of ``modules`` normalises as ever, and no pass moves its running statistics."""
    tracking = [norm for each in modules for norm in each.modules() if isinstance(norm, _BatchNorm)]
    tracking = [norm for norm in tracking if norm.track_running_stats]
    for norm in tracking:
        norm.track_running_stats = False  # in training: neither read nor written; in evaluation: read
    try:
        yield
    finally:
        for norm in tracking:
            norm.track_running_stats = True
