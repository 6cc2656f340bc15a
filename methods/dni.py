"""Decoupled neural interfaces: every block learns from a gradient that a small network predicts from its output.

Paper:
    Jaderberg et al. 2016, "Decoupled Neural Interfaces using Synthetic Gradients", arXiv 1608.05343.

Signal:
    Block i receives ``delta_i = S_i(sg(h_i)) / (B sqrt(n_i))``, with B images in the batch and n_i values in one
    image's map. Synthesiser S_i learns to predict what arrives from above: it minimises the mean over the images of
    ``|B delta_i - B d_i|^2``. The target ``d_i = J_{i+1}^T delta_{i+1}`` is bootstrapped from the next block's
    guess; for the last block it is the true gradient that the classifier sends down.

    On the scale: the loss is a mean over the batch, so its gradient shrinks as 1/B and its values as 1/sqrt(n).
    Multiplied by both, the target's root mean square is the norm of one image's own gradient, of order one near the
    top, and the regression is the element-wise mean square error of S_i's raw output: one learning rate suits
    synthesisers of every batch size, width and resolution, and no weight has to be tuned.

Cost:
    One synthesiser of three 5x5 convolutions per block, run once forward and once backward per step, often more work
    than the block itself. Run one after the other as here, every block's graph is kept like in back-prop, and every
    synthesiser's graph and target until the step's end.

Deviations:
    1. AlonNT/Thesis zeroes the last convolution's weight only, so that at the start its bias is a signal some 400
       times too large; here weight and bias are zero, and the blocks stand still until the synthesisers know better.
    2. AlonNT/Thesis regresses on the unscaled gradient, whose values are near 1e-5; here the scale above.
    3. AlonNT/Thesis runs a synthesiser twice per step, which also moves its BatchNorm statistics twice; once is enough.
    4. The paper updates a block before the next one runs; here all step together, as in AlonNT/Thesis. The signals
       are the same, because output and guess are those from before the update.
    5. Without a label the synthesiser sees the map alone (``--context``, or the method cdni, gives it the label).
    6. Convolutions that BatchNorm follows have no bias, which would have no effect.

Reference numbers:
    AlonNT/Thesis, CIFAR-10 test accuracy, best of 1500 epochs, BasicCNN without augmentation: 65.6 % (58.1 % at the
    end). eugenium/DGL, a like BasicCNN with crop and flip: best 65.16 %, last 64.74 %.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from consts import block_name
from datamodules.base import DataSpec
from heads.synthesiser import Synthesiser
from methods._base import Traits
from methods._signal import SignalMethod, Trace
from model import Backbone
from sections.rules.dni import DniArgs


class SyntheticGradients(SignalMethod):
    """The signal is what a block's synthesiser expects from above."""

    TRAITS = Traits(isolation="neighbour")
    args: DniArgs

    def __init__(self, args: DniArgs, backbone: Backbone, spec: DataSpec) -> None:
        super().__init__(args, backbone, spec)
        num_context_classes = spec.num_classes if args.context else 0
        self.synthesisers = nn.ModuleDict(
            {
                block_name(i): Synthesiser(backbone.out_shapes[i], num_context_classes)
                for i in range(self.first_trainable, backbone.num_blocks)
            }
        )

    def block_heads(self, index: int) -> list[nn.Module]:
        """The block's synthesiser; the last block's classifier too."""
        return [self.synthesisers[block_name(index)], *super().block_heads(index)]

    def scaled_heads(self, index: int) -> tuple[str, float, list[nn.Module]]:
        """The synthesiser, with ``--synthesiser_rate_scale``."""
        return "synthesiser", self.args.synthesiser_rate_scale, [self.synthesisers[block_name(index)]]

    def synthesise(self, index: int, trace: Trace) -> Tensor:
        """The gradient that S_i expects at the output of block ``index``, with S_i's graph and no other."""
        out_BCHW = trace.outputs[index]
        assert out_BCHW is not None
        raw_BCHW = self.synthesisers[block_name(index)](out_BCHW.detach(), trace.batch.y_B)
        # Out of half precision before the division: the regression subtracts two small numbers.
        raw_BCHW = raw_BCHW.float() if raw_BCHW.dtype.itemsize < 4 else raw_BCHW
        return raw_BCHW / math.sqrt(len(raw_BCHW) * raw_BCHW.numel())

    def signal(self, index: int, trace: Trace, above_BCHW: Tensor) -> Tensor:
        """The synthetic gradient; what came from above is kept as its target."""
        synthetic_BCHW = self.synthesise(index, trace)
        # On the trace, not on the method: it ends with the step, and copies of the method hold no graph.
        trace.kept.append((synthetic_BCHW, above_BCHW))
        return synthetic_BCHW.detach().to(above_BCHW.dtype)

    def learn(self, trace: Trace) -> Tensor:
        """Sum over the blocks of the mean squared distance between guessed and received gradients of single images."""
        terms = [len(target) * (guess - target).square().sum() for guess, target in trace.kept]
        return torch.stack(terms).sum()
