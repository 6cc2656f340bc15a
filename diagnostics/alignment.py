"""Gradient alignment: cosine and norm ratio of a method's gradient to back-propagation's, block by block."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from datamodules.base import Batch
from methods._base import Method
from model import Backbone
from objectives.classification import cross_entropy


class Alignment(NamedTuple):
    """Cosine between the two gradients, in [-1, 1], and norm of the method's gradient over that of back-propagation."""

    cosine: float
    ratio: float


def gradient_alignment(method: Method, plain: Backbone, batch: Batch) -> dict[int, Alignment]:
    """Compare the gradients of the parameters of every trainable block on one batch, at the same weights.

    A copy of the method computes the gradients, so the method itself does not change. Heads are not compared, because
    back-propagation has none; the gradient of the last block includes the classifier. Both networks are in training
    mode (batch statistics, frozen blocks in evaluation mode), but without dropout. Blocks without a gradient in either
    network are omitted.

    Args:
        method: the network with its learning rule.
        plain: a backbone of the same architecture; its weights are overwritten. The method's own backbone may contain
            layers with another backward pass.
        batch: images and labels.
    """
    probe = copy.deepcopy(method)
    for parameter in probe.parameters():
        parameter.grad = None
    wanted = set(plain.state_dict())
    plain.load_state_dict({name: value for name, value in method.backbone.state_dict().items() if name in wanted})
    plain.train()
    for block in plain.blocks[: method.phases.learning.start]:
        block.eval()
    for network in (probe, plain):
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
    with torch.random.fork_rng(devices=[batch.x_BCHW.device] if batch.x_BCHW.is_cuda else []):
        probe.fill_grads(batch)
    loss = cross_entropy(plain(batch.x_BCHW), batch.y_B, method.label_smoothing)
    parameters = list(plain.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
        parameter.grad = gradient
    return dict(_compare(probe, plain))


def _compare(probe: Method, plain: Backbone) -> Iterator[tuple[int, Alignment]]:
    for index in range(probe.first_trainable, plain.num_blocks):
        own_D, true_D = _flat(probe.backbone, index), _flat(plain, index)
        own, true, both = own_D @ own_D, true_D @ true_D, own_D @ true_D
        if own > 0 and true > 0:
            # The root of the product, not the product of roots: for equal gradients this is exactly 1.
            yield index, Alignment(float(both / (own * true).sqrt()), float((own / true).sqrt()))


def _flat(backbone: Backbone, index: int) -> Tensor:
    """All gradients of a block as one float64 vector; a missing gradient is zero."""
    parts = [backbone.block(index), *([backbone.classifier] if index == backbone.num_blocks - 1 else [])]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for part in parts for p in part.parameters()]
    return torch.cat([gradient.flatten().double() for gradient in gradients]) if gradients else torch.zeros(0)
