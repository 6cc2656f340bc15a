"""Feedback alignment: the error travels down through weights that are not the forward weights.

Paper:
    Lillicrap, Cownden, Tweed, Akerman 2016, "Random synaptic feedback weights support error backpropagation for deep
    learning", Nature Communications 7; arXiv 1411.0247. Also known as random back-propagation (Baldi, Sadowski, Lu
    2016, arXiv 1612.02734, who have ``sparse``, ``few_bits`` and ``--ignore_derivative``). ``usf``, ``brsf``,
    ``frsf``: Liao, Leibo, Poggio 2015, "How Important is Weight Symmetry in Backpropagation?", arXiv 1510.05067.
    ``kolen_pollack``, ``weight_mirror``: Akrout, Wilson, Humphreys, Lillicrap, Tweed 2019, "Deep Learning without
    Weight Transport", arXiv 1904.05391.

Signal:
    Block i receives what block i + 1 sent down, as in back-propagation, but in every convolution and linear layer
    (those of the classifier included) the gradient at the input is formed with weights B of the weight's shape:
    ``delta_in = B^T delta_out``, for a convolution its transposed convolution with B. The gradients of weights and
    biases follow from the delta that arrives; the last layer's are back-prop's. ``--feedback`` says what B is:

    - ``random``: drawn once; ``sparse``: most of it zero (``--feedback_density``); ``few_bits``: the same B, but
      delta_out is rounded to ``--feedback_bits`` bits on its way down.
    - ``usf``: ``s sign(W)``; ``frsf``: ``|M| sign(W)`` with M drawn once; ``brsf``: with M drawn for every batch.
    - ``kolen_pollack``: B takes every step that W takes, decay included. So ``W - B`` shrinks by ``1 - lr
      weight_decay`` in a step of SGD without momentum, and of AdamW, whatever the gradients. With ``--weight_decay 0``
      it stays as it is: Baldi's adaptive random back-propagation.
    - ``weight_mirror``: before every batch each layer gets noise alone, and B, at the norm of W, is a running average
      (``--mirror_rate``) of ``(W noise) noise^T``, the mean of which is W.

Cost:
    Back-prop's time and activations, and a buffer of the size of the weights, also for ``sparse``; for ``usf`` only
    during a step. ``kolen_pollack``: a gradient and the optimiser's state for B as well. ``weight_mirror``: two
    products of each layer's weights with ``--mirror_patches`` patches of noise for every image.

Deviations:
    1. B and M are drawn from PyTorch's default law of the forward weights, uniform within 1 / sqrt(fan_in), so that at
       the start the signals have the size of back-prop's; the paper tunes its scale. s is that law's standard
       deviation. They are drawn after the whole network, which therefore starts as under any other method.
    2. The paper starts from small or zero forward weights; a ReLU network is dead at zero, so ours starts as always.
    3. Batch normalisation, ReLU, pooling and dropout go backward exactly. For the scale gamma of the normalisation this
       is, formally, weight transport; every convolutional implementation read (biotorch, sign-symmetry, DFA's) does it.
    4. Convolutions share B across positions as they share their weights; the paper has fully connected layers only.
    5. usf, brsf and frsf without Batch Manhattan, the update by the gradient's sign: batch normalisation does here what
       it is for.
    6. The mirror sees the layer's linear map, without bias and activation, in patches of a kernel's size. The authors'
       code means to scale B after mirroring, but its line has no effect, and it mirrors for an epoch before it trains.
    7. Rows of sparse B are scaled to the variance of full ones.
    8. Adam adds its decay to the gradient, where W and B differ; there the law of ``kolen_pollack`` holds nearly.
    9. With ``random``, ``sparse`` and ``few_bits`` BasicCNN stays below 90 % on digits in eight epochs at the default
       learning rate; biotorch takes a hundredth of back-prop's for random feedback on LeNet.

Reference numbers:
    biotorch, CIFAR-10 test error, best epoch on 5,000 held-out images, 250 epochs: LeNet without normalisation 46.69 %
    (SGD) and 40.67 % (Adam), where back-prop has 14.23 % and 15.92 %; ResNet-20 32.16 % and 29.59 % (8.63 % and
    10.01 %). usf, brsf, frsf on ResNet-20 (SGD): 10.05 %, 11.02 %, 11.20 %. MNIST, LeNet: 1.70 % (0.91 %), epoch chosen
    on the test set; 0.94 %, 0.91 %, 0.97 %. Akrout's code, sigmoid network of one hidden layer, last of 400 epochs,
    CIFAR-10 test accuracy: back-prop 48.18 %, random 42.96 %, kolen_pollack 47.57 %, weight_mirror 46.20 %.
"""

from __future__ import annotations

from torch import Tensor

from datamodules.base import Batch, DataSpec
from layers.straight import straighten
from methods._base import Traits
from methods._signal import SignalMethod, Trace
from methods._way_down import Transported
from model import Backbone
from sections.rules.fa import FaArgs


class FeedbackAlignment(Transported, SignalMethod):
    """The signal is what comes from above; the layers' way down has weights of its own."""

    TRAITS = Traits(isolation="none")
    args: FaArgs

    def __init__(self, args: FaArgs, backbone: Backbone, spec: DataSpec) -> None:
        super().__init__(args, backbone, spec)
        if args.ignore_derivative:
            for index in range(self.first_trainable, backbone.num_blocks):
                straighten(*self.parts(index))

    def run(self, batch: Batch) -> tuple[Trace, Tensor]:
        """Forward, once the feedback weights are those of this batch."""
        for layer in self.layers_with_feedback():
            layer.feedback.before(layer, batch)
        return super().run(batch)

    def signal(self, index: int, trace: Trace, above_BCHW: Tensor) -> Tensor:
        """The cotangent from above."""
        return above_BCHW

    def learn(self, trace: Trace) -> None:
        """Feedback weights learn when every gradient of the forward weights is known."""
        self.learn_feedback()
