"""The weights through which a layer sends the error down, one class for each word of ``--feedback``.

One operation carries the error through a layer: a product, or a transposed convolution, with the weights that
`Feedback.weights` gives (`methods._transport`). The rules differ in these weights alone: how they are drawn, what
changes them, and, for few bits, how exactly the error is told.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from datamodules.base import Batch
from sections.rules.fa import FaArgs


class FeedbackLayer(nn.Module):
    """What the layers with feedback weights have in common.

    Attributes:
        weight: forward weights, (out, ...).
        B: what the feedback keeps for the layer, of the weight's shape; absent where it needs nothing.
        place: where the rule keeps feedback weights that the optimiser trains: a list, and the position in it.
        feedback: what decides about the way down.
        pads_first: whether the input that `pull` sees is padded already.
    """

    weight: Tensor
    B: Tensor
    place: tuple[nn.ParameterList, int]
    feedback: Feedback
    pads_first: bool = False

    @abstractmethod
    def pull(self, grad: Tensor, x: Tensor, feedback: Tensor) -> Tensor:
        """The gradient at the input ``x`` for the one at the output, with feedback weights in place of the weights."""


def drawn_like(weight: Tensor) -> Tensor:
    """PyTorch's default for both kinds of layer: uniform within 1 / sqrt(fan_in)."""
    return nn.init.kaiming_uniform_(torch.empty_like(weight), a=math.sqrt(5))


def fan_in(weight: Tensor) -> int:
    """Weights of one output."""
    return weight[0].numel()


def sparse(weight: Tensor, density: float) -> Tensor:
    """Keep this share of each row's weights, at least one, at random, scaled to the variance that the row had."""
    rows = weight.flatten(1)
    count = max(1, round(density * rows.shape[1]))
    ranks = torch.rand_like(rows).argsort(1).argsort(1)
    return (rows * (ranks < count) / math.sqrt(count / rows.shape[1])).view_as(weight)


def few_bits(grad: Tensor, bits: int) -> Tensor:
    """Round each image's error to ``2^bits`` equally spaced values, half of them on either side of zero.

    The outermost lie half a step within the image's largest error; what is zero stays zero.
    """
    steps = 2 ** (bits - 1)
    largest = grad.abs().flatten(1).amax(1).view(-1, *[1] * (grad.dim() - 1))
    share = grad.abs() / largest.clamp_min(torch.finfo(grad.dtype).tiny)
    return grad.sign() * largest * ((share * steps).floor().clamp_max(steps - 1) + 0.5) / steps


class Feedback:
    """Fixed random weights with the law of the forward weights (random); one object for all layers."""

    def __init__(self, args: FaArgs | None = None) -> None:
        self.args = args or FaArgs()

    def add(self, layer: FeedbackLayer) -> None:
        """Give the layer what it needs."""
        layer.register_buffer("B", drawn_like(layer.weight))

    def collect(self, layer: FeedbackLayer, learned: nn.ParameterList) -> None:
        """Append what the optimiser trains for the layer beside the network's own."""

    def weights(self, layer: FeedbackLayer) -> Tensor:
        """The weights for the way down, of the forward weights' shape."""
        return layer.B

    def told(self, grad: Tensor) -> Tensor:
        """The error at the layer's output as it is sent down."""
        return grad

    def before(self, layer: FeedbackLayer, batch: Batch) -> None:
        """Prepare the feedback weights for a batch, before its forward pass."""

    def after(self, layer: FeedbackLayer) -> None:
        """Give feedback weights that are learned their gradients, once the forward weights have theirs."""


class UniformSigns(Feedback):
    """The signs of the forward weights, all at one size, the standard deviation of their initial law (usf)."""

    def add(self, layer: FeedbackLayer) -> None:
        """Nothing: the signs are read from the forward weights."""

    def weights(self, layer: FeedbackLayer) -> Tensor:
        """``s sign(W)``, with ``s = 1 / sqrt(3 fan_in)``."""
        return layer.weight.detach().sign() / math.sqrt(3 * fan_in(layer.weight))


class FixedMagnitudes(Feedback):
    """The signs of the forward weights at random sizes that are drawn once (frsf)."""

    def add(self, layer: FeedbackLayer) -> None:
        """Draw the sizes."""
        layer.register_buffer("B", drawn_like(layer.weight).abs_())

    def weights(self, layer: FeedbackLayer) -> Tensor:
        """``|M| sign(W)``, element by element."""
        return layer.B * layer.weight.detach().sign()


class RedrawnMagnitudes(FixedMagnitudes):
    """The signs of the forward weights at random sizes that are drawn anew for every batch (brsf)."""

    def add(self, layer: FeedbackLayer) -> None:
        """Room for the sizes; the next batch has others, so that they are not saved."""
        layer.register_buffer("B", drawn_like(layer.weight).abs_(), persistent=False)

    def before(self, layer: FeedbackLayer, batch: Batch) -> None:
        """Draw the sizes of this batch."""
        layer.B.uniform_(0, 1 / math.sqrt(fan_in(layer.weight)), generator=batch.generator)


class Sparse(Feedback):
    """Fixed random weights, most of them zero (sparse)."""

    def add(self, layer: FeedbackLayer) -> None:
        """Draw random weights, and set most of them to zero."""
        layer.register_buffer("B", sparse(drawn_like(layer.weight.detach()), self.args.feedback_density))


class FewBits(Feedback):
    """Fixed random weights for an error that is told in a few bits (few_bits)."""

    def told(self, grad: Tensor) -> Tensor:
        """Rounded."""
        return few_bits(grad, self.args.feedback_bits)
