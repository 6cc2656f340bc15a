"""Alignment with back-propagation, block by block: of gradients, of signals, and of feedback with forward weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from datamodules.base import Batch
from layers.dropout import Dropout
from methods._base import Method
from methods._signal import SignalMethod, Trace
from model import Backbone
from objectives.classification import cross_entropy

ROWS = 16  # of a comparison at a time, because they are computed in float64


class Agreement(NamedTuple):
    """How alike a vector and a reference are: cosine in [-1, 1], angle in degrees, ratio of the norms."""

    cosine: float
    angle: float
    ratio: float


class Alignment(NamedTuple):
    """What agrees how well, by block; blocks where one of the two is zero or not there are left out.

    Attributes:
        gradients: of all parameters of the block, with those of back-propagation.
        signals: of what a `SignalMethod` injects at the block's output, with the gradient of the loss there. Cosine
            and angle are means over the images.
        feedback: of weights that lead down with the forward weights they stand for (`Method.feedback_pairs`).
    """

    gradients: dict[int, Agreement]
    signals: dict[int, Agreement]
    feedback: dict[int, Agreement]


def alignment(method: Method, plain: Backbone, batch: Batch) -> Alignment:
    """Compare every trainable block on one batch, at the same weights.

    A copy of the method computes the gradients, so the method itself does not change. Heads are not compared, because
    back-propagation has none; the gradient of the last block includes the classifier. Both networks are in training
    mode (batch statistics, frozen blocks in evaluation mode), but without dropout.

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
            if isinstance(module, Dropout | nn.Dropout):
                module.eval()
    signals = _watch_signals(probe)
    with torch.random.fork_rng(devices=[batch.x_BCHW.device] if batch.x_BCHW.is_cuda else []):
        probe.fill_grads(batch)
    true_signals = _back_propagate(plain, batch, method.label_smoothing)
    gradients, feedback = {}, {}
    for index in range(method.first_trainable, plain.num_blocks):
        gradients[index] = agreement(_gradient(probe.backbone, index), _gradient(plain, index))
        pairs = probe.feedback_pairs(index)
        feedback[index] = agreement(*(_row(side) for side in zip(*pairs, strict=True))) if pairs else None
    compared = {
        index: agreement(signal.flatten(1), true_signals[index].flatten(1)) for index, signal in signals.items()
    }
    kinds = (gradients, compared, feedback)
    return Alignment(*({index: each for index, each in sorted(kind.items()) if each} for kind in kinds))


@torch.no_grad()
def agreement(own_BD: Tensor, true_BD: Tensor) -> Agreement | None:
    """Cosine and angle of the rows, averaged over those in which neither is zero, and the ratio of the norms of all."""
    rows = zip(own_BD.split(ROWS), true_BD.split(ROWS), strict=True)
    own_B, true_B, both_B = torch.cat([_products(own.double(), true.double()) for own, true in rows], 1)
    known_B = (own_B > 0) & (true_B > 0)
    if not known_B.any():
        return None
    # The root of the product, not the product of roots: for equal vectors this is exactly 1.
    cosines = (both_B / (own_B * true_B).sqrt())[known_B].clamp(-1, 1)
    ratio = (own_B.sum() / true_B.sum()).sqrt()
    return Agreement(float(cosines.mean()), float(cosines.arccos().rad2deg().mean()), float(ratio))


def _products(own_BD: Tensor, true_BD: Tensor) -> Tensor:
    """Squares of both, and their product, (3, B)."""
    return torch.stack(
        [(one * other).sum(1) for one, other in ((own_BD, own_BD), (true_BD, true_BD), (own_BD, true_BD))]
    )


def _watch_signals(probe: Method) -> dict[int, Tensor]:
    """What will hold the signal of every block once the gradients are filled; it stays empty where none is sent."""
    found: dict[int, Tensor] = {}
    if isinstance(probe, SignalMethod):
        signal = probe.signal

        def watched(index: int, trace: Trace, above_BCHW: Tensor) -> Tensor:
            found[index] = signal(index, trace, above_BCHW)
            return found[index]

        probe.signal = watched  # type: ignore[method-assign]
    return found


def _back_propagate(plain: Backbone, batch: Batch, label_smoothing: float) -> list[Tensor]:
    """Fill the gradients of the network, and return those of the loss at the output of every block."""
    h_BCHW, outputs = batch.x_BCHW, []
    for block in plain.blocks:
        h_BCHW = block(h_BCHW)
        outputs.append(h_BCHW)
    loss = cross_entropy(plain.classifier(h_BCHW), batch.y_B, label_smoothing)
    parameters = list(plain.parameters())
    found = torch.autograd.grad(loss, [*parameters, *outputs], allow_unused=True)
    for parameter, gradient in zip(parameters, found, strict=False):
        parameter.grad = gradient
    return [*found[len(parameters) :]]


def _gradient(backbone: Backbone, index: int) -> Tensor:
    """All gradients of a block as one row; a missing gradient is zero."""
    parts = [backbone.block(index), *([backbone.classifier] if index == backbone.num_blocks - 1 else [])]
    parameters = [parameter for part in parts for parameter in part.parameters()]
    return _row([torch.zeros_like(each) if each.grad is None else each.grad for each in parameters])


def _row(values: Sequence[Tensor]) -> Tensor:
    return torch.cat([value.flatten().double() for value in values])[None] if values else torch.zeros(1, 0)
