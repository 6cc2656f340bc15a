"""Convolutions and linear layers that send the error down through feedback weights ``B`` of their own.

``B`` replaces the transposed forward weights. The forward pass and the gradients of weight and bias are the plain
layer's, by plain autograd. So a rule about the way down (fixed, sign-symmetric or learned feedback) is a rule about
``B`` and leaves the loop over blocks as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from layers.convolution import Conv2d
from utils import UsageError


class _Detour(torch.autograd.Function):
    """Identity on a layer's output; backward, it also gives the layer's input the gradient ``pull(grad, x, B)``.

    The layer itself ran on a detached input, so this is the input's only gradient. Saving ``x`` costs no memory: the
    layer keeps the same tensor for its weight's gradient.
    """

    @staticmethod
    def forward(ctx: Any, out: Tensor, x: Tensor, feedback: Tensor, pull: Callable[..., Tensor]) -> Tensor:
        """Return ``out`` itself."""
        ctx.save_for_backward(x, feedback)
        ctx.pull = pull
        ctx.mark_dirty(out)  # else autograd would return a view, which an in-place ReLU may not overwrite
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Compute in the type of the forward pass, which under autocast is narrower than that of ``B``."""
        x, feedback = ctx.saved_tensors
        return grad, ctx.pull(grad, x.to(grad.dtype), feedback.to(grad.dtype)).to(x.dtype), None, None


def _pull_linear(grad: Tensor, x: Tensor, feedback: Tensor) -> Tensor:
    return grad @ feedback


def _pull_conv2d(grad: Tensor, x: Tensor, feedback: Tensor, *, geometry: tuple[Any, ...], groups: int) -> Tensor:
    """`torch.nn.grad.conv2d_input`, but with the real ``x``: its stand-in would be copied, and is not channels_last."""
    stride, padding, dilation = geometry
    return torch.ops.aten.convolution_backward(
        grad, x, feedback, None, stride, padding, dilation, False, [0, 0], groups, [True, False, False]
    )[0]


class FeedbackLinear(nn.Linear):
    """A linear layer whose input gradient is ``grad @ B``.

    Attributes:
        B: feedback weights of the weight's shape, (out, in); a buffer.
    """

    B: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        if not input.requires_grad:
            return super().forward(input)
        out = F.linear(input.detach(), self.weight, self.bias)
        return _Detour.apply(out, input, self.B, _pull_linear)


class FeedbackConv2d(Conv2d):
    """A convolution whose input gradient is the transposed convolution with ``B``.

    Attributes:
        B: feedback weights of the weight's shape; a buffer.
    """

    B: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, H, W) to the convolution's output."""
        if not input.requires_grad:
            return super().forward(input)
        padding = self.padding
        if self.padding_mode == "zeros" and not isinstance(padding, str):
            out = super().forward(input.detach())
        else:  # As `nn.Conv2d` does it; the padding's own backward pass is exact.
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            input, padding = F.pad(input, self._reversed_padding_repeated_twice, mode), (0, 0)
            out = F.conv2d(input.detach(), self.weight, self.bias, self.stride, padding, self.dilation, self.groups)
        pull = partial(_pull_conv2d, geometry=(self.stride, padding, self.dilation), groups=self.groups)
        return _Detour.apply(out, input, self.B, pull)


FORMS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: FeedbackLinear, nn.Conv2d: FeedbackConv2d, Conv2d: FeedbackConv2d,
}  # fmt: skip


def add_feedback(root: nn.Module) -> None:
    """Give every layer with weights in ``root`` feedback weights, drawn like its forward weights, in place.

    The layers change their class and nothing else: parameters, their names and their values stay. Batch normalisation
    keeps its exact backward pass, and so does everything without parameters.

    Raises:
        UsageError: a layer has weights and no feedback form.
    """
    for layer in root.modules():
        kind = type(layer)
        if kind in FORMS:
            assert isinstance(layer, nn.Linear | nn.Conv2d)
            # PyTorch's default for both kinds of layer: uniform within 1 / sqrt(fan_in).
            feedback = nn.init.kaiming_uniform_(torch.empty_like(layer.weight), a=math.sqrt(5))
            layer.__class__ = FORMS[kind]  # type: ignore[assignment]
            layer.register_buffer("B", feedback)
        elif next(layer.parameters(recurse=False), None) is not None and not isinstance(layer, _BatchNorm):
            raise UsageError(
                f"a layer of type {kind.__name__} has weights but no feedback form; there is one for "
                + " and ".join(sorted({form.__name__ for form in FORMS}))
            )


def feedback_pairs(root: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Feedback weights and forward weights of every layer in ``root`` that has both."""
    return [(layer.B, layer.weight) for layer in root.modules() if isinstance(layer, FeedbackLinear | FeedbackConv2d)]
