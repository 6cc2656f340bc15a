"""Feedback from the logits straight to a block that is learned, one class for each such word of ``--dfa --feedback``.

Each is a module that stands for one block: called with what the block and the top know, it returns the signal, and
leaves gradients on its own parameters or moves its running average. Matrices are kept transposed, as (classes,
features), like the weight of a linear layer from the features to the classes.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from methods._base import add_gradient
from methods._broadcast import uniform
from sections.rules.dfa import DfaArgs


class Seen(NamedTuple):
    """What the feedback of a block may read.

    Attributes:
        out_BD: the block's output, flat and without a graph.
        error_BN: gradient of the mean loss at the logits.
        y_B: labels.
    """

    out_BD: Tensor
    error_BN: Tensor
    y_B: Tensor


class Learned(nn.Module):
    """The feedback of one block, without a graph."""

    def __init__(self, num_classes: int, num_features: int, args: DfaArgs) -> None:
        super().__init__()

    @abstractmethod
    def signal(self, seen: Seen) -> Tensor:
        """The signal, (B, D)."""

    @torch.no_grad()
    def forward(self, seen: Seen) -> Tensor:
        """The signal (B, D), computed in the type of the matrix, which under autocast is wider than the images'."""
        with torch.autocast(seen.out_BD.device.type, enabled=False):
            dtype = (*self.parameters(), *self.buffers())[0].dtype
            return self.signal(Seen(seen.out_BD.to(dtype), seen.error_BN.to(dtype), seen.y_B))


class Adaptive(Learned):
    """A matrix that learns as the weights of a linear classifier on the block's output would (adaptive)."""

    def __init__(self, num_classes: int, num_features: int, args: DfaArgs) -> None:
        super().__init__(num_classes, num_features, args)
        self.B = nn.Parameter(uniform(num_classes, num_features))

    def signal(self, seen: Seen) -> Tensor:
        """``B e``; the gradient of B is the sum of ``e h^T`` over the images."""
        add_gradient(self.B, seen.error_BN.t() @ seen.out_BD)
        return seen.error_BN @ self.B


class LowRank(Learned):
    """Two thin factors: P keeps the largest directions of the errors, Q learns from them as `Adaptive` (low_rank).

    Attributes:
        P: (R, N); orthonormal rows at first, and again where Oja's rule rests.
        Q: (R, D).
    """

    def __init__(self, num_classes: int, num_features: int, args: DfaArgs) -> None:
        super().__init__(num_classes, num_features, args)
        self.P = nn.Parameter(nn.init.orthogonal_(torch.empty(args.feedback_rank, num_classes)))
        self.Q = nn.Parameter(uniform(args.feedback_rank, num_features))

    def signal(self, seen: Seen) -> Tensor:
        """The signal ``Q P e``; P's gradient is ``P C P^T P - P C``, with C the mean of ``e e^T`` over the images."""
        errors_BN = seen.error_BN
        told_BR = errors_BN @ self.P.t()
        add_gradient(self.Q, told_BR.t() @ seen.out_BD)
        covariance_NN = errors_BN.t() @ errors_BN * len(errors_BN)  # each image's own error is B times its share
        kept_RN = self.P @ covariance_NN
        add_gradient(self.P, kept_RN @ self.P.t() @ self.P - kept_RN)
        return told_BR @ self.Q


class Correlation(Learned):
    """A running average of the products of the block's output and the error (correlation)."""

    running_B: Tensor

    def __init__(self, num_classes: int, num_features: int, args: DfaArgs) -> None:
        super().__init__(num_classes, num_features, args)
        self.register_buffer("running_B", uniform(num_classes, num_features))
        self.momentum = args.correlation_momentum

    def signal(self, seen: Seen) -> Tensor:
        """``R e`` with ``R = momentum R + (1 - momentum) h e^T``, the mean over the images of the batch included."""
        self.running_B.lerp_(seen.error_BN.t() @ seen.out_BD, 1 - self.momentum)
        return seen.error_BN @ self.running_B


class Bidirectional(Learned):
    """A matrix that also learns to draw the block's output from the label, behind a ReLU (bidirectional)."""

    def __init__(self, num_classes: int, num_features: int, args: DfaArgs) -> None:
        super().__init__(num_classes, num_features, args)
        self.B = nn.Parameter(uniform(num_classes, num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))

    def signal(self, seen: Seen) -> Tensor:
        """``B e``; the top-down loss is the mean over the images of ``|relu(B y + c) - h|^2 / 2``."""
        drawn_BD = (self.B[seen.y_B] + self.bias).relu_()
        missed_BD = (drawn_BD - seen.out_BD) * (drawn_BD > 0) / len(drawn_BD)
        add_gradient(self.B, torch.zeros_like(self.B).index_add_(0, seen.y_B, missed_BD))
        add_gradient(self.bias, missed_BD.sum(0))
        return seen.error_BN @ self.B


LEARNED: dict[str, type[Learned]] = {
    "adaptive": Adaptive, "low_rank": LowRank, "correlation": Correlation, "bidirectional": Bidirectional,
}  # fmt: skip
