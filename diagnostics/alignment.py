"""How far a method's gradients point where back-propagation's point, block by block."""

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
    """Cosine of the angle between two gradients in [-1, 1], and the norm of the method's over that of back-prop's."""

    cosine: float
    ratio: float


def gradient_alignment(method: Method, plain: Backbone, batch: Batch) -> dict[int, Alignment]:
    """Compare the gradients of every trainable block's parameters on one batch, at the same weights.

    The method works on a copy of itself, so nothing of it changes; its heads are not compared, because back-propagation
    has none. The last block's gradient includes the classifier's. Both networks are as in training (batch statistics,
    frozen blocks evaluated), but without dropout. A block without a gradient on either side is left out.

    Args:
        method: the network with its rule.
        plain: a backbone of the same shape; its weights are overwritten. It is not the method's own because that may
            have layers with another backward pass.
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
            # The root of the product, not the product of roots: of equal gradients this is 1 in every bit.
            yield index, Alignment(float(both / (own * true).sqrt()), float((own / true).sqrt()))


def _flat(backbone: Backbone, index: int) -> Tensor:
    """All gradients of a block as one float64 vector; a parameter without one counts as zero."""
    parts = [backbone.block(index), *([backbone.classifier] if index == backbone.num_blocks - 1 else [])]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for part in parts for p in part.parameters()]
    return torch.cat([gradient.flatten().double() for gradient in gradients]) if gradients else torch.zeros(0)
