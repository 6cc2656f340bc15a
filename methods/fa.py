"""Feedback alignment: the error travels down through fixed random weights.

Paper:
    Lillicrap, Cownden, Tweed, Akerman 2016, "Random synaptic feedback weights support error backpropagation for deep
    learning", Nature Communications 7; arXiv 1411.0247. Also known as random back-propagation (Baldi).

Signal:
    Block i receives what block i + 1 sent down, as in back-propagation, but in every convolution and linear layer
    (those of the classifier included) the gradient at the input is formed with fixed random weights B of the weight's
    shape: ``delta_in = B^T delta_out``, for a convolution its transposed convolution with B. The gradients of weights
    and biases follow from the delta that arrives; the last layer's are back-prop's.

Cost:
    Back-prop's time and activations, and a buffer of the size of the weights.

Deviations:
    1. B is drawn from PyTorch's default law of the forward weights, uniform within 1 / sqrt(fan_in), so that at the
       start the signals have the size of back-prop's; the paper tunes its scale. It is drawn after the whole network,
       which therefore starts as under any other method.
    2. The paper starts from small or zero forward weights; a ReLU network is dead at zero, so ours starts as always.
    3. Batch normalisation, ReLU, pooling and dropout go backward exactly. For the scale gamma of the normalisation this
       is, formally, weight transport; every convolutional implementation read (biotorch, sign-symmetry, DFA's) does it.
    4. Convolutions share B across positions as they share their weights; the paper has fully connected layers only.

Reference numbers:
    biotorch, CIFAR-10 test error, best epoch on 5,000 held-out images, 250 epochs: LeNet without normalisation 46.69 %
    (SGD) and 40.67 % (Adam), where back-prop has 14.23 % and 15.92 %; ResNet-20 32.16 % and 29.59 % (8.63 % and
    10.01 %). MNIST, LeNet: 1.70 % (0.91 %), epoch chosen on the test set.
"""

from __future__ import annotations

from torch import Tensor

from datamodules.base import DataSpec
from methods._base import Traits
from methods._signal import SignalMethod, Trace
from methods._transport import add_feedback, feedback_pairs
from model import Backbone
from sections.rules.fa import FaArgs


class FeedbackAlignment(SignalMethod):
    """The signal is what comes from above; the layers' way down is random."""

    TRAITS = Traits(isolation="none")

    def __init__(self, args: FaArgs, backbone: Backbone, spec: DataSpec) -> None:
        super().__init__(args, backbone, spec)
        for part in (*backbone.blocks[self.first_trainable :], backbone.classifier):
            add_feedback(part)

    def signal(self, index: int, trace: Trace, above_BCHW: Tensor) -> Tensor:
        """The cotangent from above."""
        return above_BCHW

    def feedback_pairs(self, index: int) -> list[tuple[Tensor, Tensor]]:
        """Those of the layers; none in the lowest block, below which nothing is sent."""
        parts = [self.backbone.block(index), *super().block_heads(index)] if index > self.first_trainable else []
        return [pair for part in parts for pair in feedback_pairs(part)]
