"""Direct difference target propagation: every block's target comes straight from the output, through learned feedback.

Paper:
    Meulemans, Carzaniga, Suykens, Sacramento, Grewe 2020, "A Theoretical Framework for Target Propagation", arXiv
    2006.14331 (DDTP-linear); code meulemansalex/theoretical_framework_for_target_propagation.

Signal:
    Block i receives ``Q_i e`` behind its pool, with ``e = (softmax - onehot) / B`` as in dfa: the target is
    ``t_i = h_i + Q_i(o - e) - Q_i(o)``, and of a linear Q_i the difference is exact, whatever the step. Q_i learns by
    difference reconstruction: noise n on h_i moves the logits by ``J_i n``, and Q_i is to find n again. With c the mean
    over the classes of ``(J_i n)^2 / s^2``, s the noise's standard deviation, k = c (1 + ``--damping``), it minimises
    ``(|Q_i J_i n|^2 / s^2 + damping c |Q_i|^2) / k - 2 <n, Q_i J_i n> / s^2``. This is least at
    ``Q = k J^T (J J^T + damping c)^-1``: up to the factor k the step of Gauss and Newton where the damping is 0, and
    back-propagation's signal where it is large. k is there so that the signal has the size of back-propagation's in
    between, and so that one learning rate suits all widths.

Cost:
    Back-prop's activations, ``num_features * num_classes`` weights a block, and for each block and step of
    ``--inverse_steps`` two forward passes through all that lies above it: quadratic in the number of blocks.

Deviations:
    1. The published rule has ``Q = J^T (J J^T + decay)^-1`` itself, so that blocks at which the output hardly moves get
       the largest targets; its rates differ by layer up to a factor of 300.
    2. Q starts random, as dfa's, and learns from the first batch on at the blocks' rate. Published are ten epochs of
       feedback alone before, and one more in every epoch.
    3. Their CNN has tanh and no BatchNorm. Here the noise of one image moves the others' logits through the statistics
       of the batch; what Q finds of it is its mean over images.
    4. The classifier is trained by its own gradient.

Reference numbers:
    None that could be read in a paper or its code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from consts import block_name
from datamodules.base import DataSpec
from heads.inverse import Weights
from methods._base import Traits, wide
from methods._signal import Trace
from methods._target import Loss, TargetMethod
from sections.rules.ddtp import DdtpArgs


class DirectFeedback(nn.Module):
    """A learned (num_classes, num_features) matrix, uniform within 1 / sqrt(num_features) at the start, as dfa's."""

    def __init__(self, num_classes: int, num_features: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(num_features)
        self.weight = nn.Parameter(torch.empty(num_classes, num_features).uniform_(-bound, bound))


class DirectTargets(TargetMethod):
    """The target is a learned linear map of the error away."""

    TRAITS = Traits(isolation="none")
    args: DdtpArgs

    def build_inverses(self, spec: DataSpec) -> dict[str, nn.Module]:
        """A matrix for every block that learns."""
        shapes = self.backbone.out_shapes
        return {
            block_name(index): DirectFeedback(spec.num_classes, shapes[index].num_features)
            for index in range(self.first_trainable, self.last + 1)
        }

    def above(self, index: int, h_BCHW: Tensor) -> Tensor:
        """The logits for an output ``h`` of block ``index``."""
        for block in self.backbone.blocks[index + 1 :]:
            h_BCHW = block(h_BCHW)
        return wide(self.backbone.classifier(h_BCHW))

    def feedback_loss(self, index: int, h_BCHW: Tensor, trace: Trace) -> Loss:
        """What the matrix of block ``index`` learns from."""
        rest_BN, damping = self.above(index, h_BCHW), self.args.damping

        def loss(weights: Weights) -> Tensor:
            with torch.no_grad():
                noise_BCHW = self.noise(h_BCHW, trace)
                moved_BN = self.above(index, h_BCHW + noise_BCHW) - rest_BN
                curvature = moved_BN.square().mean() / self.variance
            found_BD = moved_BN @ weights[0]
            agreement = (found_BD * noise_BCHW.flatten(1)).sum(1).mean() / self.variance
            size = found_BD.square().sum(1).mean() / self.variance + damping * curvature * weights[0].square().sum()
            return size / (curvature * (1 + damping)) - 2 * agreement

        return loss

    def displacement(self, index: int, trace: Trace, above_BCHW: Tensor) -> Tensor:
        """``-Q e`` with every image's own error."""
        out_BCHW = trace.outputs[index]
        assert out_BCHW is not None
        loss = self.feedback_loss(index, wide(out_BCHW.detach()), trace)
        (matrix_ND,) = self.learn_inverse(block_name(index), trace, loss)
        return -len(above_BCHW) * (trace.error_BN.to(matrix_ND.dtype) @ matrix_ND).view_as(above_BCHW)
