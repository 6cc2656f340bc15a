"""Predictive coding: the errors of all blocks share one energy, and are relaxed before the weights learn.

Paper:
    Whittington, Bogacz 2017, "An Approximation of the Error Backpropagation Algorithm in a Predictive Coding Network
    with Local Hebbian Synaptic Plasticity" (``--inference state``); Goemaere and others 2025, arXiv 2505.20137, code
    cgoemaere/error_based_PC (``error``, ePC); Song, Lukasiewicz, Xu, Bogacz 2020, "Can the Brain Do Backpropagation?"
    (``zil``, Z-IL); Millidge, Tschantz, Buckley 2020, arXiv 2006.04182 (``fixed``).

Signal:
    The energy ``E = sum_i |eps_i|^2 / 2 + loss`` is a sum over the images, with errors ``eps_i = s_i - f_i(s_{i-1})``
    of the blocks' states. It is relaxed from the forward pass on, then block i receives ``-eps_i / (B share)`` at its
    output, linearised at s_{i-1}, and the classifier the gradient of the mean loss at the last state. The one rule of
    scale: divided by B and by the share ``1 - (1 - rate)^steps`` of the way that the moves come towards a gradient that
    stays as it is, signals of blocks and classifier are all in units of the mean loss. ``--inference`` says what moves:

    - ``error``: all errors down the gradient of E, through the whole network.
      One move leaves ``eps_i = -rate dloss/ds_i``: near back-propagation for ``rate steps`` well below 1.
    - ``state``: every state by ``-rate (eps_i - J_{i+1}^T eps_{i+1})``. It has the equilibrium of ``error``, but a
      signal goes down one block a move, times the rate: with n steps the last n blocks learn, and no others.
    - ``fixed``: likewise, but all f_i and J_i stay those of the forward pass. At rate 1 n steps are
      back-propagation for the last n blocks, and the others do not learn.
    - ``zil``: states at rate 1, and the gradient of a block at the one step at which its error arrives. That is
      back-propagation, exactly. What states do before and after it changes no gradient, and is left out.

    The equilibrium of ``state`` and ``error`` is not back-propagation. ``residual``, the norm of ``dE/deps`` over that
    of the errors, tells how near it is (0 there; about 1 / (rate steps) near back-propagation); ``--diagnostics
    alignment`` tells how near back-propagation is. Further metrics are ``iterations``, and of every block the
    ``energy`` of its error, an image's mean. If E rises, the run ends.

Cost:
    A forward pass; for a step one forward and one backward pass of all blocks but the first (``zil`` has one step); and
    to learn two forward passes, a backward one, and one of the activations alone. Measured on BasicCNN with 8 images of
    32x32: with 5 steps 4.8 times the work of back-propagation, ``zil`` 2.2 times. A step's graph is freed before the
    next: autograd holds 10.1 MiB after one step and after five, back-propagation 14.6, since the first block's graph,
    the largest there, is made only to learn. ``state``, ``fixed`` and ``zil`` have one block's graph at a time.

Deviations:
    1. The released ePC takes 5 moves of 0.001 and divides all of E by 0.005, so that the gradient of the output layer
       is 200 times as large as the hidden ones', which Adam hides. Here it is in their unit.
    2. The papers have no BatchNorm. Here it takes part, with the statistics of the batch at the states, and makes short
       moves necessary; running statistics are those of the forward pass. At kinks of max-pools states may not come to
       rest, and the residual stays.
    3. States and errors are those of blocks, behind pool and dropout; the classifier is the output layer as a whole. A
       batch has one dropout, in all passes.
    4. No momentum of states, and no step of the weights within the relaxation (incremental predictive coding, iPC). A
       rule here fills gradients, and the engine takes one step of the optimiser for a batch, with its schedule and
       clipping; weights that move at every inference step would need an optimiser within the rule.
    5. The default for errors, 5 moves of 0.01, is a compromise between the released one and the equilibrium, at which
       signals nearly vanish as the network learns.
    6. In bf16 a block sees its input rounded to eight bits, in which short moves are lost.

Reference numbers:
    ``--pc --dataset digits --batch_size 32``, one run each: BasicCNN with ``error`` 98.6 % after three epochs; VGGs
    after eight 98.9 % with ``error``, ``zil`` and ``fixed``, 98.6 % with ``state``. On VGGs after four, ``error`` with
    40 steps 91.1 %: gradients are 0.02 to 0.03 of back-propagation's by then, with cosines of 0.98 to 0.38.
    Goemaere 2025, CIFAR-10, means of 5: VGG-5 ``error`` 88.27 %, ``state`` 84.66 %, back-propagation 87.95 %; VGG-7
    88.84, 77.98, 89.60 %.
"""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.base import Batch
from methods._base import Traits, wide
from methods._relax import Chain, RelaxMethod, Settled
from sections.rules.pc import PcArgs


class PredictiveCoding(RelaxMethod):
    """Relaxes with beta 1; ``--inference`` says what is moved."""

    TRAITS = Traits(isolation="none")
    args: PcArgs

    def nudges(self, batch: Batch) -> list[tuple[float | Tensor, float]]:
        """The loss itself."""
        return [(1.0, 1.0)]

    @property
    def default_rate(self) -> float:
        """A move of errors sees the whole network, and has to be shorter."""
        return 0.01 if self.args.inference == "error" else 0.1

    @property
    def share(self) -> float:
        """As in the family; the one move of ``zil`` goes all the way."""
        return 1.0 if self.args.inference == "zil" else super().share

    def relax(self, chain: Chain, nudge: float | Tensor) -> Settled:
        """As ``--inference`` says."""
        inference, forward = self.args.inference, [chain.x_BCHW, *chain.outputs]
        if inference == "error":
            return super().relax(chain, nudge)
        if inference == "state":
            states = [*chain.outputs]
            for _ in range(self.moves):
                self.sweep(chain, [chain.x_BCHW, *states], states, self.rate)
            return Settled([chain.x_BCHW, *states], chain.errors(states), self.moves, descends=True)
        errors = [torch.zeros_like(out) for out in chain.outputs]
        if inference == "zil":
            self.sweep(chain, forward, errors, rate=1.0, in_turn=True)
            return Settled(forward, errors, 1, descends=False)
        for _ in range(self.moves):
            self.sweep(chain, forward, errors, self.rate)
        return Settled(forward, errors, self.moves, descends=False)

    def sweep(
        self, chain: Chain, inputs: list[Tensor], moved: list[Tensor], rate: float, in_turn: bool = False
    ) -> None:
        """Move every state by ``-rate (eps_i - J_{i+1}^T eps_{i+1})`` in place, the blocks linearised at ``inputs``.

        ``moved`` are the states, or the errors where the inputs stay as they are. All move at once, or ``in_turn`` from
        the top down, so that the error above is that behind its own move. One block's graph is alive at a time.
        """
        leaf = inputs[-1].detach().requires_grad_()
        loss = chain.mean_loss(chain.run(chain.num_blocks, leaf))
        (pulled,) = torch.autograd.grad(chain.size * loss, leaf)
        for place in reversed(range(chain.num_blocks)):
            leaf = inputs[place].detach().requires_grad_()
            out = chain.run(place, leaf) if place else chain.outputs[0]  # the first block's input does not move
            error = moved[place]
            if self.args.inference == "state":
                error = error - wide(out.detach())
            move = rate * (error + pulled)
            moved[place] = moved[place] - move
            if place:
                seen = error - move if in_turn else error
                (pulled,) = torch.autograd.grad(out, leaf, -seen.to(out.dtype))
