"""Dual propagation: every unit has two states; their mean is its activity, their difference its error.

Paper:
    Høier, Staudt, Zach 2023, "Dual Propagation: Accelerating Contrastive Hebbian Learning with Dyadic Neurons", arXiv
    2302.01228 (``--weighting plain``); Høier, Zach 2024, "Two Tales of Single-Phase Contrastive Hebbian Learning",
    arXiv 2402.08573 (``transposed``); code Rasmuskh/dualprop_icml_2024.

Signal:
    The network is cut at its activations phi, those of the classifier's hidden layers included: ``a_k = F_k(s_{k-1})``,
    where F_k is all that lies between two of them, as dropout, pool, convolution, BatchNorm. With alpha ``--mixture``,
    the states ``s+ = phi(a_k + (1 - alpha) b_k)`` and ``s- = phi(a_k - alpha b_k)`` have the mean
    ``s_k = alpha s+ + (1 - alpha) s-``, and ``b_k = J^T (s+ - s-)`` is the difference of the states above, brought down
    by the Jacobian of F_{k+1} at s_k. At the output ``s+ - s- = -beta (softmax - onehot)`` of every image, beta being
    ``--nudge``. F_k receives ``(s- - s+) / (beta B)`` at its output a_k, a mean over the B images.
    ``plain`` has alpha and 1 - alpha exchanged in s+ and s-. States start as in a forward pass; a sweep finds them anew
    from the output down.
    Where no unit of a piecewise linear network is moved across a kink, all this is back-propagation exactly, with any
    beta and alpha; otherwise in the limit of a small beta, with an error of beta, or beta^2 where alpha is 1/2. So a
    small ``--nudge`` makes parity with back-propagation no news: compare ``--diagnostics alignment``.
    With ``--feedback kolen_pollack`` the Jacobians are those of `fa` with that feedback: in place of the weights' own
    transposes stand weights that take every step of the forward weights.

Cost:
    A forward pass, and a forward and a backward pass for every sweep. Beside the states the graph of one F_k is alive
    at a time: memory is less than back-propagation's. ``kolen_pollack`` adds weights, gradients and the optimiser's
    state of the size of the network's.

Deviations:
    1. beta is in units of one image's own loss. The released networks nudge by the gradient of a batch's mean loss and
       write ReLU's states so that beta is 1 there: at 100 images it is 0.01 here.
    2. They have no BatchNorm. Here it belongs to F_k, with the batch's statistics at the present s_{k-1}; running
       statistics are those of the forward pass.
    3. One sweep by default; their script for VGG16 has 16, with alpha = 0 and beta = 0.1.
    4. Kolen-Pollack's weights are drawn as the forward weights and learn at their rate; theirs warm up at a rate of
       1e-4 in place of 5e-3.
    5. The last sweep's gradients are taken at the activities of the sweep before, which is one pass less.

Reference numbers:
    From an account of the paper: CIFAR-10 92.3 %, MNIST 98.4 % test accuracy.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from consts import block_name
from datamodules.base import Batch, DataSpec
from layers.normalisation import untracked
from methods._base import StepOutput, Traits, wide
from methods._way_down import Transported
from model import ACTIVATIONS, Backbone, layers_of
from objectives.classification import cross_entropy
from sections.rules.dualprop import DualpropArgs
from utils import UsageError


class Layer(NamedTuple):
    """What lies between two activations, and the one that follows; None behind the output."""

    drive: nn.Sequential
    activation: nn.Module | None


class DualPropagation(Transported):
    """Two states for every unit."""

    TRAITS = Traits(isolation="none")
    args: DualpropArgs

    def __init__(self, args: DualpropArgs, backbone: Backbone, spec: DataSpec) -> None:
        super().__init__(args, backbone, spec)
        for index in range(self.first_trainable, backbone.num_blocks):
            if not any(isinstance(layer, ACTIVATIONS) for layer in layers_of(backbone.block(index))):
                kinds = " - ".join(type(layer).__name__ for layer in layers_of(backbone.block(index)))
                raise UsageError(
                    f"--dualprop: {block_name(index)} ({kinds}) shows no activation; its units need one of "
                    + ", ".join(kind.__name__ for kind in ACTIVATIONS)
                )

    def layers(self) -> list[Layer]:
        """The part of the network that learns, cut behind every activation."""
        found: list[Layer] = []
        drive: list[nn.Module] = []
        for layer in layers_of(*self.backbone.parts[self.first_trainable :]):
            if isinstance(layer, ACTIVATIONS):
                found.append(Layer(nn.Sequential(*drive), layer))
                drive = []
            else:
                drive.append(layer)
        return [*found, Layer(nn.Sequential(*drive), None)]

    def fill_grads(self, batch: Batch) -> StepOutput:
        """Forward, then as many sweeps as are asked for, the last of which leaves gradients."""
        layers, x = self.layers(), batch.x_BCHW
        states: list[Tensor] = []  # the input of every layer
        with torch.no_grad():
            for block in self.backbone.blocks[: self.first_trainable]:
                x = block(x)
            for drive, activation in layers:
                states.append(x)
                x = drive(x)
                x = x if activation is None else activation(wide(x).clone())  # which may work in place
        loss = cross_entropy(x, batch.y_B, self.label_smoothing)
        with untracked(self.backbone):
            for sweep in range(self.args.sweeps):
                self.sweep(layers, states, batch, is_last=sweep == self.args.sweeps - 1)
        self.learn_feedback()
        absent: list[Tensor | None] = [None] * self.last
        return StepOutput([*absent, x], [*absent, loss])

    def sweep(self, layers: list[Layer], states: list[Tensor], batch: Batch, is_last: bool) -> None:
        """Find ``states`` anew in place, from the output down; the last time, leave gradients."""
        signal = torch.empty(0)
        for place in reversed(range(len(layers))):
            drive, activation = layers[place]
            leaf = states[place].detach().requires_grad_(place > 0)
            driven = drive(leaf)
            if activation is None:
                logits_BN = driven.detach().requires_grad_()
                (signal,) = torch.autograd.grad(cross_entropy(logits_BN, batch.y_B, self.label_smoothing), logits_BN)
            else:
                states[place + 1], signal = self.states(wide(driven.detach()), wide(signal), activation)
            if is_last:
                driven.backward(signal.to(driven.dtype))
                signal = torch.empty(0) if leaf.grad is None else leaf.grad
            elif place:
                (signal,) = torch.autograd.grad(driven, leaf, signal.to(driven.dtype))

    def states(self, driven: Tensor, signal: Tensor, activation: nn.Module) -> tuple[Tensor, Tensor]:
        """The mean of both states, and their difference as the gradient to send on, ``(s- - s+) / (beta B)``."""
        unit, alpha = self.args.nudge * len(signal), self.args.mixture
        upper, lower = (1 - alpha, alpha) if self.args.weighting == "transposed" else (alpha, 1 - alpha)
        plus, minus = activation(driven - upper * unit * signal), activation(driven + lower * unit * signal)
        return alpha * plus + (1 - alpha) * minus, (minus - plus) / unit
