"""The weights through which a layer sends the error down, one class for each word of ``--feedback``.

One operation carries the error through a layer: a product, or a transposed convolution, with the weights that
`Feedback.weights` gives (`methods._transport`). The rules differ in these weights alone: how they are drawn, what
changes them, and, for few bits, how exactly the error is told.
"""

from __future__ import annotations

import math

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
    """

    weight: Tensor
    B: Tensor
    place: tuple[nn.ParameterList, int]
    feedback: Feedback


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
        """Update the feedback weights from the gradients of the forward weights."""


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


def trained(layer: FeedbackLayer) -> Tensor:
    """The feedback weights of a layer that the optimiser trains, from where the rule keeps them."""
    learned, place = layer.place
    return learned[place]


class KolenPollack(Feedback):
    """Weights of their own that take every step of the forward weights, so that weight decay makes both equal."""

    def add(self, layer: FeedbackLayer) -> None:
        """Nothing: B is a parameter of the rule and not of the network."""

    def collect(self, layer: FeedbackLayer, learned: nn.ParameterList) -> None:
        """Draw B; the layer notes its place and not B, which is another object once the rule is on another device."""
        layer.place = (learned, len(learned))
        learned.append(nn.Parameter(drawn_like(layer.weight.detach())))

    def weights(self, layer: FeedbackLayer) -> Tensor:
        """B, without a graph."""
        return trained(layer).detach()

    def after(self, layer: FeedbackLayer) -> None:
        """Give B the gradient of the forward weights."""
        if layer.weight.grad is not None:
            trained(layer).grad = layer.weight.grad.clone()


class WeightMirror(Feedback):
    """A running average of the correlation of noise at the layer's input with what its weights make of it."""

    def add(self, layer: FeedbackLayer) -> None:
        """Draw the running average's first value: random weights."""
        layer.register_buffer("running_B", drawn_like(layer.weight))

    def weights(self, layer: FeedbackLayer) -> Tensor:
        """The running average at the norm of W: of few patches its noise would outgrow what it has learned."""
        mirrored = layer.get_buffer("running_B")
        return mirrored * (layer.weight.detach().norm() / mirrored.norm())

    def noise(self, layer: FeedbackLayer, batch: Batch) -> Tensor:
        """Patches of standard normal noise for each image of the step, (S, fan_in); the same in every replica."""
        count, weight = len(batch.y_B) * batch.share[1] * self.args.mirror_patches, layer.weight
        return torch.randn(count, fan_in(weight), dtype=weight.dtype, device=weight.device, generator=batch.generator)

    @torch.no_grad()
    def before(self, layer: FeedbackLayer, batch: Batch) -> None:
        """Move the average: the mean of ``(W noise) noise^T`` is W."""
        noise_SK, weight_OK = self.noise(layer, batch), layer.weight.flatten(1)
        seen_OK = (noise_SK @ weight_OK.t()).t() @ noise_SK / len(noise_SK)
        seen = seen_OK.view_as(layer.weight).to(layer.weight.dtype)
        layer.get_buffer("running_B").lerp_(seen, self.args.mirror_rate)


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


FEEDBACK: dict[str, type[Feedback]] = {
    "random": Feedback, "usf": UniformSigns, "brsf": RedrawnMagnitudes, "frsf": FixedMagnitudes,
    "kolen_pollack": KolenPollack, "weight_mirror": WeightMirror, "sparse": Sparse, "few_bits": FewBits,
}  # fmt: skip
