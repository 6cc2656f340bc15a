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

    ``--bp_lambda`` is the paper's BP(lambda): the signal is ``(1 - lambda) delta_i + lambda d_i``, which goes on down
    and is part of the next target. 0 is the guess alone; 1 is back-propagation, exactly.

    ``--unlock forward`` unlocks the forward pass too: a block but the first runs on ``I_i(x)``, made from the image
    (without the label), and I_i minimises the mean square error to the output of the block below, which ran on an input
    of that kind itself. ``d_i`` is then the gradient at I_{i+1}(x). Inference is the plain network.

Cost:
    One synthesiser of three 5x5 convolutions per block, run once forward and once backward per step, often more work
    than the block itself; with synthetic inputs nearly twice that. Run one after the other as here, every block's graph
    is kept like in back-prop, and every synthesiser's graph and target until the step's end.

Deviations:
    1. AlonNT/Thesis zeroes the last convolution's weight only, so that at the start its bias is a signal some 400
       times too large; here weight and bias are zero, and the blocks stand still until the synthesisers know better.
    2. AlonNT/Thesis regresses on the unscaled gradient, whose values are near 1e-5; here the scale above.
    3. AlonNT/Thesis runs a synthesiser twice per step, which also moves its BatchNorm statistics twice; once is enough.
    4. The paper updates a block before the next one runs; here all step together, as in AlonNT/Thesis. The weights
       are the same in every bit, because output, guess and target are those from before the update. So update unlocking
       is a matter of when the work is done and no choice of ``--unlock``.
    5. Without a label the synthesiser sees the map alone (``--context``, or the method cdni, gives it the label).
    6. Convolutions that BatchNorm follows have no bias, which would have no effect.
    7. koz4k/dni-pytorch shows the label to the models of inputs as well, from which the blocks above could read it off,
       in training only. Ours see the image, and their last convolution does not start from zero, which would leave the
       blocks above without an input.
    8. With synthetic inputs the statistics of BatchNorm are those of the synthetic maps, and accuracy and loss in
       training those of the last block on such a map.

Reference numbers:
    AlonNT/Thesis, CIFAR-10 test accuracy, best of 1500 epochs, BasicCNN without augmentation: 65.6 % (58.1 % at the
    end). eugenium/DGL, a like BasicCNN with crop and flip: best 65.16 %, last 64.74 %.
    Here, digits, ``python main.py --dni --learning_rate 0.05 --dataset digits --model BasicCNN --epochs 8`` (CPU,
    bfloat16, seed 0), test accuracy: 66.4 %; with ``--unlock forward`` 75.0 %; with ``--bp_lambda 0.5`` 99.2 %. Guesses
    alone learn slowly.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from consts import block_name
from datamodules.base import Batch, DataSpec
from heads.synthesiser import InputSynthesiser, Synthesiser
from methods._base import Traits, wide
from methods._signal import SignalMethod, Trace
from model import Backbone, Shape
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
        image = Shape(spec.num_channels, spec.height, spec.width)
        above_first = range(self.first_trainable + 1, backbone.num_blocks) if args.unlock == "forward" else ()
        self.input_synthesisers = nn.ModuleDict(
            {block_name(i): InputSynthesiser(image, backbone.out_shapes[i - 1]) for i in above_first}
        )

    @property
    def traits(self) -> Traits:
        """With ``--bp_lambda`` a signal has come through all blocks above."""
        return Traits(isolation="none") if self.args.bp_lambda else self.TRAITS

    def block_heads(self, index: int) -> list[nn.Module]:
        """The block's synthesisers; the last block's classifier too."""
        return [*self.block_synthesisers(index), *super().block_heads(index)]

    def scaled_heads(self, index: int) -> tuple[str, float, list[nn.Module]]:
        """The synthesisers, with ``--synthesiser_rate_scale``."""
        return "synthesiser", self.args.synthesiser_rate_scale, self.block_synthesisers(index)

    def block_synthesisers(self, index: int) -> list[nn.Module]:
        """That of the gradient at the output of block ``index``, and that of its input if it has one."""
        name = block_name(index)
        return [kind[name] for kind in (self.synthesisers, self.input_synthesisers) if name in kind]

    def hand_over(self, index: int, below_BCHW: Tensor, batch: Batch, kept: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The synthetic input, if there is one; what came from below is kept as its target."""
        if block_name(index) not in self.input_synthesisers:
            return below_BCHW
        synthetic_BCHW = self.input_synthesisers[block_name(index)](batch.x_BCHW)
        kept.append((_scaled(synthetic_BCHW), _scaled(below_BCHW.detach())))
        return synthetic_BCHW.to(below_BCHW.dtype)

    def synthesise(self, index: int, trace: Trace) -> Tensor:
        """The gradient that S_i expects at the output of block ``index``, with S_i's graph and no other."""
        out_BCHW = trace.outputs[index]
        assert out_BCHW is not None
        return _scaled(self.synthesisers[block_name(index)](out_BCHW.detach(), trace.batch.y_B))

    def signal(self, index: int, trace: Trace, above_BCHW: Tensor) -> Tensor:
        """The synthetic gradient, mixed with what came from above, which is also its target."""
        synthetic_BCHW = self.synthesise(index, trace)
        # On the trace, not on the method: it ends with the step, and copies of the method hold no graph.
        trace.kept.append((synthetic_BCHW, above_BCHW))
        guess_BCHW = synthetic_BCHW.detach().to(above_BCHW.dtype)
        # torch.lerp gives either end in every bit.
        return torch.lerp(guess_BCHW, above_BCHW, self.args.bp_lambda) if self.args.bp_lambda else guess_BCHW

    def learn(self, trace: Trace) -> Tensor:
        """Sum over the synthesisers of the mean square error of what they say, before it is scaled."""
        terms = [len(target) * (guess - target).square().sum() for guess, target in trace.kept]
        return torch.stack(terms).sum()


def _scaled(raw_BCHW: Tensor) -> Tensor:
    """Divided by ``B sqrt(n)``, as gradients of a mean loss are; out of half precision before that.

    A regression subtracts two small numbers.
    """
    raw_BCHW = wide(raw_BCHW)
    return raw_BCHW / math.sqrt(len(raw_BCHW) * raw_BCHW.numel())
