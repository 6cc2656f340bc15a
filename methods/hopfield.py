"""Equilibrium propagation in a Hopfield network: states settle by themselves, then the loss nudges them.

Paper:
    Scellier, Bengio 2017, "Equilibrium Propagation", arXiv 1602.05179; with convolutions and both signs Laborieux and
    others 2021, code Laborieux-Axel/Equilibrium-Propagation. Contrastive Hebbian learning: Xie, Seung 2003,
    "Equivalence of Backpropagation and Contrastive Hebbian Learning in a Layered Network".

Signal:
    Block i has a state s_i between 0 and 1, and connections lead down with the weights that lead up:
    ``Phi = sum_i <s_i, g_i(s_{i-1})>``, g_i being convolution, dropout and pool. A state moves to
    ``clip(u / 2, 0, 1)`` of its input ``u = dPhi/ds_i = g_i(s_{i-1}) + J_{i+1}^T s_{i+1}``, part of the way
    (``--settle_rate``). From the pass forward on, ``--free_steps`` sweeps from the top down give s(0), of which the
    classifier makes the logits, also at inference.
    From there ``--nudged_steps`` sweeps of ``Phi - beta loss`` give s(beta); beta (``--nudge``) is in units of each
    image's own loss. The gradient is ``-[dPhi/dw(beta) - dPhi/dw(0)] / (beta B)`` for ``one_sided``, half of the
    difference of both signs for ``centred``, and one sign that is drawn for every batch for ``random_sign``. Where all
    phases settle, that is the gradient of the loss at the free equilibrium up to beta, with both signs up to beta^2
    (tested). The classifier only reads the last state, and learns from the nudged states.
    With ``--output_feedback`` the outputs belong to the network: a softmax group, ``Phi += logsumexp(logits)``. Then
    ``--nudging one_sided --nudge 1`` clamps them to the label, and the rule is contrastive Hebbian learning (tested).
    ``residual`` is the move of the last free sweep over the states, 0 where they have settled.

Cost:
    A sweep is a forward and a backward pass through all blocks but the first, whose input is a constant and is computed
    anew. With the defaults a step takes 20 of them and inference 10. One block's graph at a time, whatever the steps.

Deviations:
    1. A sweep moves the states one after the other, from the top down; the published code moves all at once. The
       equilibria are the same, and no free sweep raises the energy (tested). Theirs takes 250 free steps.
    2. The classifier as a whole is the output, its hidden layer no state but an ordinary layer. With such a layer the
       clamped phase need not come to rest: ``--mlp_n_hidden_layers 0`` has none.
    3. Blocks are convolutions; BatchNorm is taken out and the activation replaced. Initial weights are scaled
       (``--weight_gain``), since without it activity vanishes with depth. Blocks that do not learn stay as they are.
    4. An image may have several equilibria; which one is found depends on where states begin.
    5. Probes and other diagnostics see the pass forward, without settling. ``export`` refuses the network, since
       torch.export cannot trace it.

Reference numbers:
    Laborieux 2021, CIFAR-10 test error: 11.7 % with both signs, 86 % with one.
    Ours, ``--hopfield --dataset digits --batch_size 32 --model VGGs``, one seed: 95.0 % test accuracy after 4 epochs,
    with a residual of 0.02. Contrastive Hebbian learning learns a fixed batch (tested), but not this: 10.0 % after 4
    epochs with ``--weight_gain 0.5``; on 300 held-out images after 2 epochs 34.3 % with that, and 10.0 % without it,
    also with ``--mlp_n_hidden_layers 0`` at rates of 0.1 and 0.01. BasicCNN was not measured.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from consts import block_name
from datamodules.base import Batch, DataSpec
from layers.local import LocallyConnected2d
from layers.normalisation import untracked
from methods._base import Method, StepOutput, Traits, wide
from methods._nudge import betas
from methods._settle import Dynamics, HardSigmoid, SettlingBackbone
from model import ACTIVATIONS, Backbone, layers_of
from objectives.classification import cross_entropy
from sections.relaxation import Nudge
from sections.rules.hopfield import HopfieldArgs
from utils import UsageError


class HopfieldPropagation(Method):
    """Weights learn from how the states at equilibrium change when the loss is given a small weight."""

    TRAITS = Traits(isolation="none")
    args: HopfieldArgs
    backbone: SettlingBackbone

    def arrange(self, backbone: Backbone, spec: DataSpec) -> Backbone:
        """The network without normalisation, its units clipped; blocks that do not learn stay as they are."""
        blocks = [backbone.block(index) for index in range(backbone.num_blocks)]
        for index, block in enumerate(blocks[self.first_trainable :], self.first_trainable):
            layers = [layer for layer in layers_of(block.features) if not isinstance(layer, _BatchNorm)]
            kinds = (nn.Conv2d | LocallyConnected2d, ACTIVATIONS)
            if len(layers) != 2 or not all(map(isinstance, layers, kinds)):
                found = " - ".join(type(layer).__name__ for layer in layers)
                raise UsageError(
                    f"--hopfield: {block_name(index)} ({found}) is not a convolution with its activation; choose a "
                    "network of such blocks, as BasicCNN"
                )
            with torch.no_grad():  # torch draws them with a standard deviation of sqrt(1 / (3 fan_in))
                next(layers[0].parameters()).mul_(3**0.5 * self.args.weight_gain)
            block.features = nn.Sequential(layers[0], HardSigmoid())
        return SettlingBackbone(blocks, backbone.classifier, self.first_trainable, self.args)

    def fill_grads(self, batch: Batch) -> StepOutput:
        """The free phase, then a nudged one for each beta; the difference of phases is the gradient."""
        with torch.autocast(batch.x_BCHW.device.type, enabled=False), untracked(self.backbone):
            dynamics = Dynamics(self.backbone, wide(batch.x_BCHW), batch.y_B, self.label_smoothing)
            free, residual = dynamics.settle(dynamics.states, self.args.free_steps)
            nudges = betas(self.args.group(Nudge), batch)
            for beta, weight in nudges:
                nudged, _ = dynamics.settle(free, self.args.nudged_steps, beta)
                dynamics.teach(nudged, beta, -weight / (beta * len(batch.x_BCHW)))
            if len(nudges) == 1:  # of two, the free phase would come in with both signs
                beta, weight = nudges[0]
                dynamics.teach(free, None, weight / (beta * len(batch.x_BCHW)))
        with torch.no_grad(), torch.autocast(batch.x_BCHW.device.type, enabled=False):
            logits_BN = dynamics.run(-1, free[-1])
            loss = cross_entropy(logits_BN, batch.y_B, self.label_smoothing)
        absent: list[Tensor | None] = [None] * self.last
        metrics = {"residual": residual, "iterations": torch.full_like(residual, self.args.free_steps)}
        return StepOutput([*absent, logits_BN], [*absent, loss], metrics)
