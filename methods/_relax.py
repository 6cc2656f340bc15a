"""Relaxing methods: states or errors are moved several times a batch, and then blocks get their gradients.

The learning blocks f_i and the classifier are a chain. Block i has a state s_i and an error ``eps_i = s_i -
f_i(s_{i-1})``, and a batch has the energy ``E = sum_i |eps_i|^2 / 2 + beta * loss`` of the classifier on the last
state, sums over the images, so that an image's states do not depend on the size of the batch. A rule relaxes E from the
forward pass on, where all errors are zero, and says with which beta; the gradient of E in the weights is then local.

Signals have one unit in all blocks, that of the mean loss: block i receives ``-eps_i / (beta B share)`` at its output,
linearised at the state below, and the classifier the gradient of the mean loss at the last state. The share, ``1 - (1 -
rate)^steps``, is how far as many moves come towards a gradient that stays as it is. So a few short moves are near
back-propagation, many are at the equilibrium, and in both the classifier learns as fast as the blocks.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from consts import ENERGY, block_name
from datamodules.base import Batch, DataSpec
from layers.normalisation import untracked
from layers.replay import RandomState
from methods._base import Method, StepOutput, wide
from model import Backbone
from objectives.classification import cross_entropy
from sections.relaxation import Relaxation
from sections.rule import MethodArgs

MARGIN = 0.1  # by which E may rise through rounding, in units of beta and of 1 + loss an image


class Settled(NamedTuple):
    """Where a relaxation ended.

    Attributes:
        inputs: at which every learning block, and behind them the classifier, is linearised.
        errors: of the blocks. A small one is not the difference of a state and an output that was rounded.
        moves: how many moves led there.
        descends: whether E is what they descend, so that it must not rise.
    """

    inputs: list[Tensor]
    errors: list[Tensor]
    moves: int
    descends: bool


class Chain:
    """The learning blocks and the classifier on one batch; a place counts from the first of these blocks.

    Making it is the forward pass: the only one that moves the running statistics of BatchNorm.

    Attributes:
        outputs: of the blocks, without a graph, in float32 or wider.
        logits_BN, loss: of the network; the loss is a mean.
    """

    def __init__(self, method: Method, batch: Batch) -> None:
        backbone, self.batch, self.smoothing = method.backbone, batch, method.label_smoothing
        self.units = backbone.parts[method.first_trainable :]
        self.size = len(batch.x_BCHW)
        self.outputs: list[Tensor] = []
        self._random: list[RandomState] = []
        with torch.no_grad():
            self.x_BCHW = batch.x_BCHW
            for block in backbone.blocks[: method.first_trainable]:
                self.x_BCHW = block(self.x_BCHW)
            x = self.x_BCHW
            for unit in self.units:
                self._random.append(RandomState.now(x.device))
                x = wide(unit(x))
                self.outputs.append(x)
        self.logits_BN = self.outputs.pop()
        self.loss = self.mean_loss(self.logits_BN)

    @property
    def num_blocks(self) -> int:
        """Those that learn."""
        return len(self.outputs)

    def run(self, place: int, x: Tensor) -> Tensor:
        """What the block at ``place``, or at the end the classifier, makes of ``x``; dropout as in the forward pass."""
        with self._random[place].again():
            out: Tensor = self.units[place](x)
        return out

    def mean_loss(self, logits_BN: Tensor) -> Tensor:
        """The loss, a mean over the images."""
        return cross_entropy(logits_BN, self.batch.y_B, self.smoothing)

    def pull(self, errors: list[Tensor], nudge: float | Tensor) -> list[Tensor]:
        """Gradient of ``nudge * loss``, a sum over the images, in every error; one graph through the whole chain."""
        leaves = [error.detach().requires_grad_() for error in errors]
        loss = self.mean_loss(self.run(self.num_blocks, self.states(leaves)[-1]))
        return [*torch.autograd.grad(nudge * self.size * loss, leaves)]

    def states(self, errors: list[Tensor]) -> list[Tensor]:
        """The states that have these errors, with their graph."""
        states = [self.outputs[0] + errors[0]]  # the input of the first of the blocks does not move
        for place, error in enumerate(errors[1:], 1):
            states.append(wide(self.run(place, states[-1])) + error)
        return states

    @torch.no_grad()
    def errors(self, states: list[Tensor]) -> list[Tensor]:
        """The errors that these states have."""
        made = [wide(self.run(place, state)) for place, state in enumerate(states[:-1], 1)]
        return [state - out for state, out in zip(states, [self.outputs[0], *made], strict=True)]


class RelaxMethod(Method):
    """The family of rules that relax an energy before they learn.

    Attributes:
        moves: of a relaxation.
        rate: their length, in units of the energy's gradient.
    """

    def __init__(self, args: MethodArgs, backbone: Backbone, spec: DataSpec) -> None:
        super().__init__(args, backbone, spec)
        settings = args.group(Relaxation)
        self.moves, self.rate = settings.inference_steps, settings.inference_rate or self.default_rate

    @abstractmethod
    def nudges(self, batch: Batch) -> list[tuple[float | Tensor, float]]:
        """The betas with which a batch is relaxed, and the weight of each in its gradient."""

    @property
    def default_rate(self) -> float:
        """The rate where the settings leave it open."""
        return 0.1

    @property
    def share(self) -> float:
        """How far the moves come towards a gradient that stays as it is."""
        return 1 - (1 - self.rate) ** self.moves

    def relax(self, chain: Chain, nudge: float | Tensor) -> Settled:
        """Move the errors of all blocks at once, against the gradient of E: ``eps_i -= rate (eps_i + dloss/deps_i)``.

        A move is a forward and a backward pass through the chain; its graph is freed before the next one begins.
        """
        errors = [torch.zeros_like(out) for out in chain.outputs]
        for _ in range(self.moves):
            pulled = chain.pull(errors, nudge)
            errors = [error - self.rate * (error + pull) for error, pull in zip(errors, pulled, strict=True)]
        with torch.no_grad():
            states = chain.states(errors)
        return Settled([chain.x_BCHW, *states], errors, self.moves, descends=True)

    def fill_grads(self, batch: Batch) -> StepOutput:
        """Forward, then relax and learn with every beta."""
        chain = Chain(self, batch)
        found: list[dict[str, Tensor]] = []
        with untracked(self.backbone):
            for nudge, weight in self.nudges(batch):
                found.append(self.learn(chain, self.relax(chain, nudge), nudge, weight))
        absent: list[Tensor | None] = [None] * self.last
        metrics = {name: torch.stack([each[name] for each in found]).mean(0) for name in found[0]}
        return StepOutput([*absent, chain.logits_BN], [*absent, chain.loss], metrics)

    def learn(self, chain: Chain, settled: Settled, nudge: float | Tensor, weight: float) -> dict[str, Tensor]:
        """Add the gradients of all blocks, from the top down, one graph at a time; what is to be reported of them."""
        scale, count = weight / (nudge * chain.size * self.share), chain.num_blocks
        squares: list[Tensor] = []
        leaf = settled.inputs[count].detach().requires_grad_()
        loss = chain.mean_loss(chain.run(count, leaf))
        (weight * loss).backward()
        assert leaf.grad is not None
        total = leaf.grad * (nudge * chain.size / weight)  # gradient of the loss at the state, as `Chain.pull`
        for place in reversed(range(count)):
            leaf = settled.inputs[place].detach().requires_grad_(place > 0)
            out = chain.run(place, leaf)
            error = settled.errors[place]
            squares.append(torch.stack([error.square().sum(), (error + total).square().sum()]))
            if place:
                (below,) = torch.autograd.grad(out, leaf, total.to(out.dtype), retain_graph=True)
                total = wide(below)
            out.backward((-scale * error).to(out.dtype))
            del out
        return self.report(chain, settled, nudge, loss.detach(), torch.stack(squares[::-1]))

    def report(self, chain: Chain, settled: Settled, nudge: Any, loss: Tensor, squares_K2: Tensor) -> dict[str, Tensor]:
        """Metrics: equilibrium residual, inference steps, and each block's energy, infinite where E has risen."""
        errors, residuals = squares_K2.sum(0)
        energy_K = squares_K2[:, 0] / (2 * chain.size)
        if settled.descends:
            limit = nudge * chain.loss + abs(nudge) * MARGIN * (1 + chain.loss)
            rose = torch.logical_not(energy_K.sum() + nudge * loss <= limit)  # also of NaN
            energy_K = torch.where(rose & (energy_K >= energy_K.max()), torch.inf, energy_K)
        named = {f"{block_name(self.first_trainable + k)}/{ENERGY}": each for k, each in enumerate(energy_K)}
        residual = (residuals / errors.clamp(min=torch.finfo(errors.dtype).tiny)).sqrt()
        return {"residual": residual, "iterations": torch.full_like(errors, settled.moves)} | named
