"""Convolutions and linear layers that send the error down through feedback weights ``B``.

``B`` replaces the transposed forward weights. The forward pass and the gradients of weight and bias are the plain
layer's, by plain autograd. So a rule about the way down (fixed, sign-symmetric or learned feedback) is a rule about
``B`` (`methods._feedback`) and leaves the loop over blocks as it is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from layers.convolution import Conv2d
from layers.local import LocallyConnected2d, transposed
from methods._feedback import Feedback, FeedbackLayer
from utils import UsageError

RANDOM = Feedback()


class _Detour(torch.autograd.Function):
    """Identity on a layer's output whose backward pass also gives the input its gradient, by the feedback weights.

    The layer itself ran on a detached input, so this is the input's only gradient. Saving ``x`` costs no memory: the
    layer keeps the same tensor for its weight's gradient.
    """

    @staticmethod
    def forward(ctx: Any, out: Tensor, x: Tensor, layer: FeedbackLayer) -> Tensor:
        """Return ``out`` itself."""
        ctx.save_for_backward(x, layer.feedback.weights(layer))
        ctx.layer = layer
        ctx.mark_dirty(out)  # else autograd would return a view, which an in-place ReLU may not overwrite
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """Compute in the type of the forward pass, which under autocast is narrower than that of ``B``."""
        x, feedback = ctx.saved_tensors
        pulled = ctx.layer.pull(ctx.layer.feedback.told(grad), x.to(grad.dtype), feedback.to(grad.dtype))
        return grad, pulled.to(x.dtype), None


class FeedbackLinear(FeedbackLayer, nn.Linear):
    """A linear layer whose input gradient is ``grad @ B``, with B of the weight's shape, (out, in)."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        if not input.requires_grad:
            return super().forward(input)
        return _Detour.apply(F.linear(input.detach(), self.weight, self.bias), input, self)

    def pull(self, grad: Tensor, x: Tensor, feedback: Tensor) -> Tensor:
        """The product with the transpose."""
        return grad @ feedback


class FeedbackConv2d(FeedbackLayer, Conv2d):
    """A convolution whose input gradient is the transposed convolution with ``B``, of the weight's shape."""

    @property
    def pads_first(self) -> bool:  # type: ignore[override]
        """Whether ``x`` of `pull` is padded already."""
        return self.padding_mode != "zeros" or isinstance(self.padding, str)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, H, W) to the convolution's output."""
        if not input.requires_grad:
            return super().forward(input)
        if self.pads_first:  # As `nn.Conv2d` does it; the padding's own backward pass is exact.
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            input = F.pad(input, self._reversed_padding_repeated_twice, mode)
            out = F.conv2d(input.detach(), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
        else:
            out = super().forward(input.detach())
        return _Detour.apply(out, input, self)

    def pull(self, grad: Tensor, x: Tensor, feedback: Tensor) -> Tensor:
        """`torch.nn.grad.conv2d_input`, but with the real ``x``: its stand-in is copied, and not channels_last."""
        padding = (0, 0) if self.pads_first else self.padding
        geometry = self.stride, padding, self.dilation, False, [0, 0], self.groups
        return torch.ops.aten.convolution_backward(grad, x, feedback, None, *geometry, [True, False, False])[0]


class FeedbackLocal(FeedbackLayer, LocallyConnected2d):
    """A locally connected layer whose input gradient is formed with ``B``, of the weight's shape."""

    @property
    def pads_first(self) -> bool:  # type: ignore[override]
        """Whether ``x`` of `pull` is padded already."""
        return self.padding_mode != "zeros"

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        if not input.requires_grad:
            return super().forward(input)
        if not self.pads_first:
            return _Detour.apply(super().forward(input.detach()), input, self)
        input = self.padded(input)
        return _Detour.apply(self.of_padded(input.detach()), input, self)

    def pull(self, grad: Tensor, x: Tensor, feedback: Tensor) -> Tensor:
        """The sum over all windows that a pixel is in."""
        padding = (0, 0) if self.pads_first else self.padding
        return transposed(grad, feedback, self.kernel_size, self.stride, padding)


FORMS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: FeedbackLinear, nn.Conv2d: FeedbackConv2d, Conv2d: FeedbackConv2d,
    LocallyConnected2d: FeedbackLocal,
}  # fmt: skip


def add_feedback(root: nn.Module, feedback: Feedback | None = None) -> list[FeedbackLayer]:
    """Give every layer with weights in ``root`` feedback weights of the kind of ``feedback``, in place.

    The layers change their class and nothing else: parameters, their names and their values stay. Batch normalisation
    keeps its exact backward pass, and so does everything without parameters.

    Returns:
        These layers.

    Raises:
        UsageError: a layer has weights and no feedback form.
    """
    found: list[FeedbackLayer] = []
    for layer in root.modules():
        kind = type(layer)
        if kind in FORMS:
            layer.__class__ = FORMS[kind]
            assert isinstance(layer, FeedbackLayer)
            layer.feedback = feedback or RANDOM
            layer.feedback.add(layer)
            found.append(layer)
        elif next(layer.parameters(recurse=False), None) is not None and not isinstance(layer, _BatchNorm):
            raise UsageError(
                f"a layer of type {kind.__name__} has weights but no feedback form; there is one for "
                + " and ".join(sorted({form.__name__ for form in FORMS}))
            )
    return found
