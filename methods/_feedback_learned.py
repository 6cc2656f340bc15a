"""Feedback weights of layers that learn: Kolen-Pollack's, and a mirror of the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datamodules.base import Batch
from methods._feedback import Feedback, FeedbackLayer, drawn_like, fan_in


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
        """The running average, scaled to the norm of W, as the noise of few patches is larger than what is learned."""
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
