"""Auxiliary heads preceded by copies of the next block's first layers, one trained, one averaged: ``--man``.

Paper:
    Su et al. 2024, "Momentum Auxiliary Network for Supervised Local Learning", ECCV 2024; MAN++, arXiv 2507.16279; code
    JunhaoSu0/MAN.

Signal:
    The head of block l (``--pred_aux_type``) reads ``y = LB(h_l) + E(h_l)``, where LB and E have the form of the first
    layers of block l + 1: its convolution, BatchNorm and ReLU, or its residual block. LB (the "learnable bias") is
    trained by the loss of block l. E is not trained; with m ``--man_momentum``, its weights become
    ``m E + (1 - m) theta`` at every step, where theta are those of block l + 1 before their update. No gradient
    reaches block l + 1, but block l depends on its weights: ``--layer_parallel`` is refused. The last block has no such
    head.

Cost:
    Twice the next block's first layers, forward and backward, and E's weights once more; no weight's gradient for E.

Deviations:
    1. LB and E start as copies of the layers; the released code draws both anew after copying.
    2. E is updated before it is used, theirs afterwards, so that ours is a step ahead.
    3. E's BatchNorm has running statistics of its own, as theirs; they are not averaged.
    4. With infopro, the decoder reads the block's output itself, theirs reads y. Heads of predsim, which read a block's
       output before its pool, begin with that pool.
    5. Where the next block was joined of several, LB and E copy the first one. Its dropout and pool are left out.
    6. With infopro, our two weights go linearly from the first to the last value with the number k of the module, 0 to
       K - 2, by the share k / (K - 2), as InfoPro's do. The released code of MAN has s / (K - 2) there, where s is the
       stage, 1 to 3, of the block behind module k: in 16 modules the share only goes from 1/14 to 3/14.

Reference numbers:
    The paper, as quoted in notes on it, CIFAR-10 test error, 400 epochs: ResNet-32 (back-propagation 6.37 %) in 8 and
    16 modules DGL 11.63 and 14.08 %, with MAN 8.42 and 9.11 % (in 16 with E alone 11.07 %); InfoPro 11.51 and 12.93 %,
    with MAN 9.32 and 9.65 %. ResNet-110 (5.42 %) in 32 and 55: DGL 12.51 and 14.45 %, with MAN 9.65 and 9.73 %.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class MomentumHead(nn.Module):
    """``head(LB(h) + E(h))``.

    Args:
        layers: the next block's first layers. LB and E start as copies of them, and E is the moving average of their
            weights; they are not part of this module.
        momentum: share of E that is kept at a step.
        head: the classifier that reads the sum.

    Attributes:
        bias: LB.
        average: E; its weights are buffers. Every forward pass in training updates them once, like the
            statistics of a BatchNorm.
    """

    def __init__(self, layers: nn.Module, momentum: float, head: nn.Module) -> None:
        super().__init__()
        self.bias, self.average, self.head = copy.deepcopy(layers), frozen(copy.deepcopy(layers)), head
        self._followed = (layers,)  # not a child: the layers are trained and saved where they belong
        self._momentum = momentum

    # Inside a compiled graph the backward pass through E would not have the weights of the forward pass (torch 2.14).
    @torch.compiler.disable
    @torch.no_grad()
    def _follow(self) -> None:
        for name, parameter in self._followed[0].named_parameters():
            self.average.get_buffer(name).lerp_(parameter, 1 - self._momentum)

    def forward(self, h_BCHW: Tensor) -> Tensor:
        """Map (B, *shape) to the head's output; in training E is updated first."""
        if self.training:
            self._follow()
        return self.head(self.bias(h_BCHW) + self.average(h_BCHW))


def frozen(module: nn.Module) -> nn.Module:
    """The same module, its parameters turned into buffers of the same names."""
    for part in module.modules():
        for name, parameter in [*part.named_parameters(recurse=False)]:
            delattr(part, name)
            part.register_buffer(name, parameter.detach())
    return module
