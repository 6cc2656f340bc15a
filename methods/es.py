"""Evolution strategies: the weights are moved to both sides, and what the loss says of it is the gradient's estimate.

Paper:
    Salimans, Ho, Chen, Sidor, Sutskever 2017, "Evolution Strategies as a Scalable Alternative to Reinforcement
    Learning", arXiv 1703.03864. ``low_rank``: EGGROLL, 2025. ``coordinate``: DeepZero, ICLR 2024. ``--subspace``:
    Maheswaranathan, Metz, Tucker, Choi, Sohl-Dickstein 2019, "Guided Evolutionary Strategies", arXiv 1806.10230.

Signal:
    With l the mean loss of the batch, w all weights and sigma ``--noise_scale``, the estimate is the mean over pairs of
    ``(l(w + sigma v) - l(w - sigma v)) / (2 sigma) v``. Of a quadratic loss the number before v is the slope ``dl . v``
    exactly, whatever sigma. There are ``--population`` / 2 pairs; ``--noise`` says what v is:

    - ``normal``: normal numbers.
    - ``low_rank``: ``A B^T / sqrt(r)`` for every matrix, the kernels of a convolution being the rows of one, with A and
      B normal and r ``--noise_rank``. Vectors of weights have normal numbers.
    - ``coordinate``: a single weight, drawn without replacement, with the estimate times the number of weights. With a
      pair for every weight these are central differences, and no estimate.

    With ``--subspace k`` a share of the noise lies in the span of the last k estimates:
    ``v = sqrt(1 - s) z + sqrt(s n / k) Q u`` with z and u normal, Q an orthonormal basis of the span, n the number of
    weights and s ``--subspace_share``. So directions in which the loss fell before are tried more often; with s = 1 no
    others are.

    The metric ``noise`` says how much of the estimate's squared length its own variance makes up, from how much the
    pairs differ: near 1 it has told next to nothing. It needs two pairs. Of full normal noise the variance is
    ``(n + 1) / pairs`` times the gradient's squared length.

Cost:
    A forward pass for every member of the population and one more. No backward pass, no activations, one direction in
    memory at a time; nothing is transported but one number a pair. ``--subspace k`` keeps k copies of the weights.

Deviations:
    1. The published strategies rank members by their loss; here its differences themselves count.
    2. They give every member examples of its own; here all see the same batch.
    3. DeepZero prunes the weights that are moved, and reuses features. Here they are drawn.
    4. With ``--subspace`` it is the gradient times the covariance of the noise that is estimated, as published: longer
       inside the span.
    5. Losses are computed in float32 or wider, whatever the precision of the run, because of the difference.

Reference numbers:
    None that could be read for networks like ours.
    Measured here with BasicCNN on digits (1.35 million weights), batches of 32, one seed, test accuracy: 11.4 % after
    one epoch with the defaults, which is chance. At a learning rate of 0.001 the loss was 18 after the second. With so
    few pairs for so many weights the metric ``noise`` is 1: use it on small networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from datamodules.base import Batch, DataSpec
from methods._base import Method, StepOutput, Traits, wide
from methods._perturb import add, exactly, normal
from model import Backbone
from objectives.classification import cross_entropy
from sections.rules.es import EsArgs


class Estimate(NamedTuple):
    """A gradient, flat, and the share of its squared length that is noise (None where one pair cannot tell)."""

    gradient_W: Tensor
    noise: Tensor | None


def estimate(loss: Callable[[Tensor], Tensor], around_W: Tensor, moves: Iterable[Tensor], scale: float) -> Estimate:
    """The mean over ``moves`` of slope times move, slopes by differences over ``2 scale``."""
    sum_W, squares, count = torch.zeros_like(around_W), around_W.new_zeros(()), 0
    for move_W in moves:
        slope = (loss(around_W + scale * move_W) - loss(around_W - scale * move_W)) / (2 * scale)
        sum_W += slope * move_W
        squares = squares + slope.square() * move_W.square().sum()
        count += 1
    mean_W = sum_W / count
    length = mean_W.square().sum()
    if count == 1:
        return Estimate(mean_W, None)
    return Estimate(mean_W, (squares / count - length) / (count - 1) / length.clamp_min(torch.finfo(length.dtype).tiny))


class EvolutionStrategies(Method):
    """Weights are moved, all at once."""

    TRAITS = Traits(isolation="none")
    args: EsArgs
    running_estimates_KW: Tensor

    def __init__(self, args: EsArgs, backbone: Backbone, spec: DataSpec) -> None:
        super().__init__(args, backbone, spec)
        if args.subspace:
            count = sum(weight.numel() for weight in self.weights)
            self.register_buffer("running_estimates_KW", torch.zeros(args.subspace, count))

    @property
    def rest(self) -> nn.Sequential:
        """All that learns, one behind the other."""
        return nn.Sequential(*self.backbone.parts[self.first_trainable :])

    @property
    def weights(self) -> list[nn.Parameter]:
        """What is moved."""
        return [*self.rest.parameters()]

    def moves(self, like_W: Tensor, batch: Batch) -> Iterator[Tensor]:
        """A random direction of all weights, flattened to one vector, for every pair."""
        pairs, count = self.args.population // 2, len(like_W)
        if self.args.noise == "coordinate":
            drawn_W = torch.rand(count, dtype=like_W.dtype, device=like_W.device, generator=batch.generator)
            for place in drawn_W.topk(min(pairs, count)).indices.split(1):
                yield torch.zeros_like(like_W).index_fill_(0, place, 1.0)
            return
        basis_WK, count_K = self.basis() if self.args.subspace else (None, None)
        for _ in range(pairs):
            if self.args.noise == "low_rank":
                yield torch.cat([low_rank(weight, self.args.noise_rank, batch).flatten() for weight in self.weights])
            elif basis_WK is None or count_K is None:
                yield normal(like_W.shape, like_W, batch)
            else:
                share, inner_K = (
                    self.args.subspace_share * count_K.clamp(max=1),
                    normal(basis_WK.shape[1:], like_W, batch),
                )
                inside_W = (share * count / count_K.clamp(min=1)).sqrt() * (basis_WK @ inner_K)
                yield (1 - share).sqrt() * normal(like_W.shape, like_W, batch) + inside_W

    def basis(self) -> tuple[Tensor, Tensor]:
        """An orthonormal basis of the last estimates, (W, K), with columns of zeros where there are fewer; how many."""
        newest_KW = self.running_estimates_KW.flip(0)  # those that are there come first
        is_there_K = (newest_KW != 0).any(1).to(newest_KW.dtype)
        return torch.linalg.qr(newest_KW.t())[0] * is_there_K, is_there_K.sum()

    @torch.no_grad()
    def fill_grads(self, batch: Batch) -> StepOutput:
        """A plain pass, which moves the running statistics, then those of the population."""
        x_BCHW, rest = batch.x_BCHW, self.rest
        for block in self.backbone.blocks[: self.first_trainable]:
            x_BCHW = block(x_BCHW)
        logits_BN = rest(x_BCHW)
        names, weights = [name for name, _ in rest.named_parameters()], self.weights
        sizes = [weight.numel() for weight in weights]

        def split(flat_W: Tensor) -> list[Tensor]:
            return [part.view_as(weight) for part, weight in zip(flat_W.split(sizes), weights, strict=True)]

        def loss(moved_W: Tensor) -> Tensor:
            moved = dict(zip(names, split(moved_W), strict=True))
            return cross_entropy(functional_call(rest, moved, (wide_BCHW,)), batch.y_B, self.label_smoothing)

        wide_BCHW, around_W = wide(x_BCHW), torch.cat([weight.flatten() for weight in weights])
        with exactly(self, batch):
            gradient_W, noise = estimate(loss, around_W, self.moves(around_W, batch), self.args.noise_scale)
        if self.args.noise == "coordinate":
            gradient_W = gradient_W * len(gradient_W)
            left = 1 - min(self.args.population // 2, len(gradient_W)) / len(gradient_W)
            noise = None if noise is None else noise * left  # what is drawn is not drawn again
        if self.args.subspace:
            self.running_estimates_KW.copy_(torch.cat([self.running_estimates_KW[1:], gradient_W[None]]))
        add(weights, split(gradient_W))
        absent: list[Tensor | None] = [None] * self.last
        mean = cross_entropy(logits_BN, batch.y_B, self.label_smoothing)
        return StepOutput([*absent, logits_BN], [*absent, mean], {} if noise is None else {"noise": noise})


def low_rank(weight: Tensor, rank: int, batch: Batch) -> Tensor:
    """A random perturbation of ``weight``: of rank ``rank`` where it is a matrix or the kernels of a convolution."""
    if weight.dim() < 2:
        return normal(weight.shape, weight, batch)
    rows, columns = weight.shape[0], weight[0].numel()
    left_OR, right_RI = normal((rows, rank), weight, batch), normal((rank, columns), weight, batch)
    return (left_OR @ right_RI / math.sqrt(rank)).view_as(weight)
