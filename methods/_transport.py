"""Convolutions and linear layers that send the error down through feedback weights ``B``.

``B`` replaces the transposed forward weights. The forward pass and the gradients of weight and bias are the plain
layer's, by plain autograd. So a rule about the way down (fixed, sign-symmetric or learned feedback) is a rule about
``B`` (`methods._feedback`) and leaves the loop over blocks as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from consts import block_name
from datamodules.base import DataSpec
from layers.convolution import Conv2d
from layers.local import LocallyConnected2d, transposed
from methods._base import Method
from methods._feedback import FEEDBACK, Feedback, FeedbackLayer
from model import Backbone
from sections.rules.dualprop import DualpropArgs
from sections.rules.fa import FaArgs
from utils import UsageError

RANDOM = Feedback()


class _Detour(torch.autograd.Function):
    """Identity on a layer's output; backward, it also gives its input the gradient ``pull(told(grad), x, feedback)``.

    The layer itself ran on a detached input, so this is the input's only gradient. Saving ``x`` costs no memory: the
    layer keeps the same tensor for its weight's gradient.
    """

    @staticmethod
    def forward(ctx: Any, out: Tensor, x: Tensor, layer: FeedbackLayer, pull: Callable[..., Tensor]) -> Tensor:
        """Return ``out`` itself."""
        ctx.save_for_backward(x, layer.feedback.weights(layer))
        ctx.pull, ctx.told = pull, layer.feedback.told
        ctx.mark_dirty(out)  # else autograd would return a view, which an in-place ReLU may not overwrite
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Compute in the type of the forward pass, which under autocast is narrower than that of ``B``."""
        x, feedback = ctx.saved_tensors
        pulled = ctx.pull(ctx.told(grad), x.to(grad.dtype), feedback.to(grad.dtype))
        return grad, pulled.to(x.dtype), None, None


def _pull_linear(grad: Tensor, x: Tensor, feedback: Tensor) -> Tensor:
    return grad @ feedback


def _pull_conv2d(grad: Tensor, x: Tensor, feedback: Tensor, *, geometry: tuple[Any, ...], groups: int) -> Tensor:
    """`torch.nn.grad.conv2d_input`, but with the real ``x``: its stand-in would be copied, and is not channels_last."""
    stride, padding, dilation = geometry
    return torch.ops.aten.convolution_backward(
        grad, x, feedback, None, stride, padding, dilation, False, [0, 0], groups, [True, False, False]
    )[0]


class FeedbackLinear(FeedbackLayer, nn.Linear):
    """A linear layer whose input gradient is ``grad @ B``, with B of the weight's shape, (out, in)."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        if not input.requires_grad:
            return super().forward(input)
        out = F.linear(input.detach(), self.weight, self.bias)
        return _Detour.apply(out, input, self, _pull_linear)


class FeedbackConv2d(FeedbackLayer, Conv2d):
    """A convolution whose input gradient is the transposed convolution with ``B``, of the weight's shape."""

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
        return _Detour.apply(out, input, self, pull)


class FeedbackLocal(FeedbackLayer, LocallyConnected2d):
    """A locally connected layer whose input gradient is formed with ``B``, of the weight's shape."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        if not input.requires_grad:
            return super().forward(input)
        input = self.padded(input)  # whose own backward pass is exact
        return _Detour.apply(self.of_padded(input.detach()), input, self, self._pull)

    def _pull(self, grad: Tensor, x: Tensor, feedback: Tensor) -> Tensor:
        return transposed(grad, feedback, self.kernel_size[0], padded=True)


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


class Transported(Method):
    """A rule whose layers may have weights of their own for the way down; to be mixed into a family.

    ``--feedback`` says which; with a word that `FEEDBACK` lacks the error goes down through the forward weights.

    Attributes:
        learned: feedback weights that the optimiser trains, by block.
    """

    args: FaArgs | DualpropArgs

    def __init__(self, args: FaArgs | DualpropArgs, backbone: Backbone, spec: DataSpec) -> None:
        super().__init__(args, backbone, spec)
        self.learned = nn.ModuleDict()
        if args.feedback not in FEEDBACK:
            return
        kind = FEEDBACK[args.feedback](args if isinstance(args, FaArgs) else None)
        for index in range(self.first_trainable, backbone.num_blocks):
            learned = nn.ParameterList()
            for layer in [layer for part in self.parts(index) for layer in add_feedback(part, kind)]:
                kind.collect(layer, learned)
            if len(learned):
                self.learned[block_name(index)] = learned

    def parts(self, index: int) -> list[nn.Module]:
        """What of the network learns with block ``index``; the classifier counts as the last block's."""
        return [self.backbone.block(index), *super().block_heads(index)]

    def block_heads(self, index: int) -> list[nn.Module]:
        """Further, the feedback weights that are learned with it."""
        name = block_name(index)
        return [*super().block_heads(index), *([self.learned[name]] if name in self.learned else [])]

    def layers_with_feedback(self) -> list[FeedbackLayer]:
        """From the bottom up."""
        return [layer for layer in self.backbone.modules() if isinstance(layer, FeedbackLayer)]

    def feedback_pairs(self, index: int) -> list[tuple[Tensor, Tensor]]:
        """Those of the layers; none in the lowest block, below which nothing is sent."""
        parts = self.parts(index) if index > self.first_trainable else []
        layers = [layer for part in parts for layer in part.modules() if isinstance(layer, FeedbackLayer)]
        return [(layer.feedback.weights(layer), layer.weight) for layer in layers]
