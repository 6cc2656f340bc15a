"""Targets with local difference reconstruction: inverses learn the transposed Jacobian, so targets become gradients.

Paper:
    Ernoult, Normandin, Moudgil, Spinney, Belilovsky, Rish, Richards, Bengio 2022, "Towards Scaling Difference Target
    Propagation by Learning Backprop Targets", arXiv 2201.13415; code ernoult/scalingDTP.

Signal:
    As tp with ``--target_rule dtp``, with other inverses: g_i of block i minimises
    ``-2 <e, g_i(f_i(x + e)) - g_i(f_i(x))> + |g_i(h_i + d) - g_i(h_i)|^2``, a mean over images and pixels in units of
    the noise's variance, with x the block's input and e, d noise of the standard deviation ``--inverse_noise``. Where
    both maps are linear, this is least at ``g = f^T``: then block i - 1 receives what back-propagation sends,
    whatever ``--target_step``. Everywhere else it is so in the limit of small steps and noise, as far as the inverse
    can be the transposed Jacobian: ours can, but for BatchNorm, whose dependence of one image on the others it lacks.

    What an inverse is: as in tp, without a bias, which the differences take away. Both halves of the loss use the
    pixels that the max-pool chose, and the units that ReLU let through, in the pass without noise, as the published
    networks do with the pool's.

Cost:
    As tp; the published recipe of 20 to 55 steps a batch (``--inverse_steps``) costs up to 30 times back-propagation's
    time. This rule comes near back-propagation by design: compare the angle (``--diagnostics alignment``) as well.

Deviations:
    1. Their networks have ELU and no BatchNorm. With ReLU a silent unit would still take in targets above 0, however
       small the step; here it stays silent (`heads.inverse`).
    2. Inverses have the blocks' optimiser and rate; theirs SGD with a rate and a noise for each layer, which the units
       of our loss make up for in part.
    3. The output layer has no inverse: the last block receives the classifier's gradient.
    4. A later rule (JML, AAAI 2024) solves this loss for linear maps in closed form, without steps. Here the solution
       is the block's own weights: that is back-propagation, and is not offered under another name.

Reference numbers:
    From an account of the paper: CIFAR-10, five 3x3 convolutions with ELU, 90 epochs, 89.4 % against 89.1 % of
    back-propagation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from consts import block_name
from heads.inverse import BlockInverse, Seen, Weights, run
from layers.local import LocallyConnected2d
from methods._base import Traits
from methods._signal import Trace
from methods._target import ChainMethod, Loss
from model import layers_of
from sections.rules.ldrl import LdrlArgs


class LocalDifferenceReconstruction(ChainMethod):
    """Targets through inverses that match the transposed Jacobian."""

    TRAITS = Traits(isolation="none")
    args: LdrlArgs

    def build_inverse(self, index: int, bias: bool = False) -> BlockInverse:
        """The inverse of block ``index``, without a bias."""
        return super().build_inverse(index, bias)

    def feedback_pairs(self, index: int) -> list[tuple[Tensor, Tensor]]:
        """The inverse's weights and the convolution's, which they would be without BatchNorm."""
        if block_name(index) not in self.inverses:
            return []
        convolution = layers_of(self.backbone.block(index))[0]
        assert isinstance(convolution, nn.Conv2d | LocallyConnected2d)
        return [(self.inverse(index).weight, convolution.weight)]

    def inverse_loss(self, index: int, x_BCHW: Tensor, seen: Seen, trace: Trace) -> Loss:
        """How noise goes up through the block and back down, and how noise goes down."""
        block, inverse, out_BCHW = self.backbone.block(index), self.inverse(index), seen.out_BCHW
        rest_BCHW = inverse.spread(out_BCHW, seen)

        def loss(weights: Weights) -> Tensor:
            with torch.no_grad():
                noise_BCHW = self.noise(x_BCHW, trace)
                up_BCHW = inverse.spread(run(block, x_BCHW + noise_BCHW).out_BCHW, seen) - rest_BCHW
                down_BCHW = inverse.spread(out_BCHW + self.noise(out_BCHW, trace), seen) - rest_BCHW
            agreement = (noise_BCHW * inverse(up_BCHW, weights)).sum(1).mean()
            return (inverse(down_BCHW, weights).square().sum(1).mean() - 2 * agreement) / self.variance

        return loss
