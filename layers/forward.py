"""Forward-mode differentiation: how an output changes where inputs or weights are moved, in one pass forward."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad


def derivative(run: Callable[..., Tensor], points: Sequence[Tensor], along: Sequence[Tensor]) -> Tensor:
    """The derivative of ``run(*points)`` along ``along``, of the shape of that output, without a graph.

    Args:
        run: may write into what it is given.
        points: where it is taken.
        along: for each point how it is moved, a tensor of the same shape and type.

    Raises:
        NotImplementedError: an operation has no forward derivative.
    """
    with torch.no_grad(), forward_ad.dual_level():
        out = run(*(forward_ad.make_dual(point.clone(), moved) for point, moved in zip(points, along, strict=True)))
        value, tangent = forward_ad.unpack_dual(out)
        return torch.zeros_like(value) if tangent is None else tangent


def without_derivative(parts: Sequence[nn.Module], x: Tensor) -> int | None:
    """The first of ``parts``, one behind the other, through which no forward derivative goes; None if it goes through.

    ``x`` is their input; parts and input may be on the meta device, where nothing is computed.
    """
    with warnings.catch_warnings(action="ignore"):  # torch's own, once in a process: of the way it registers some
        for place, part in enumerate(parts):
            try:
                derivative(part, [x], [torch.zeros_like(x)])
            except NotImplementedError:
                return place
            with torch.no_grad():
                x = part(x)
    return None
