"""What perturbation rules share: the loss as a function of something that is moved, seen from forward passes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from datamodules.base import Batch
from layers.normalisation import untracked
from methods._base import Method, add_gradient
from objectives.classification import cross_entropy

Draw = Callable[[Sequence[int], Tensor, Batch], Tensor]


def shares(method: Method, first: int, h_BCHW: Tensor, batch: Batch) -> Tensor:
    """What every image adds to the mean loss, (B,), where ``h`` is the input of part ``first``."""
    for part in method.backbone.parts[first:]:
        h_BCHW = part(h_BCHW)
    return cross_entropy(h_BCHW, batch.y_B, method.label_smoothing, "none") / len(h_BCHW)


def shares_with(method: Method, index: int, weights: Sequence[Tensor], x_BCHW: Tensor, batch: Batch) -> Tensor:
    """Likewise, where ``x`` is the input of part ``index`` and ``weights`` stand for its parameters."""
    part = method.backbone.parts[index]
    named = {name: weight for (name, _), weight in zip(part.named_parameters(), weights, strict=True)}
    return shares(method, index + 1, functional_call(part, named, (x_BCHW,)), batch)


@contextmanager
def exactly(method: Method, batch: Batch) -> Iterator[None]:
    """Inside, everything has the type of the weights, and BatchNorm's running statistics stay."""
    with torch.autocast(batch.x_BCHW.device.type, enabled=False), untracked(method.backbone):
        yield


def _made(like: Tensor, batch: Batch) -> dict[str, Any]:
    return {"dtype": like.dtype, "device": like.device, "generator": batch.generator}


def signs(shape: Sequence[int], like: Tensor, batch: Batch) -> Tensor:
    """Random signs, on the device of ``like`` and of its type."""
    return torch.randint(2, shape, **_made(like, batch)) * 2 - 1


def normal(shape: Sequence[int], like: Tensor, batch: Batch) -> Tensor:
    """Normal numbers, likewise."""
    return torch.randn(shape, **_made(like, batch))


def add(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor]) -> None:
    """Add to ``.grad`` of each."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        add_gradient(parameter, gradient)


DRAW: dict[str, Draw] = {"rademacher": signs, "normal": normal}
