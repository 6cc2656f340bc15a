"""Direct feedback alignment: every block receives the error at the logits through a fixed random matrix.

Paper:
    Nokland 2016, "Direct Feedback Alignment Provides Learning in Deep Neural Networks", arXiv 1609.01596.

Signal:
    Block i receives ``B_i e`` at its output, behind the pool, where ``e = (softmax - onehot) / B`` is the gradient of
    the mean loss at the logits and B_i a fixed random (num_features, num_classes) matrix: one value for each unit and
    class, kept transposed like the weight of a linear layer. Inside the block (convolution, normalisation, ReLU, pool)
    ordinary gradients are taken.

Cost:
    Back-prop's activations, since e is known at the end of the forward pass only, and ``num_features * num_classes``
    floats a block. No block needs another's backward pass. This implementation runs them one after the other and still
    forms the unused gradient at every block's input, so a step takes no less time than back-prop's.

Deviations:
    1. B_i is uniform within 1 / sqrt(num_features), as in the author's code: the law of a linear layer from these
       features to the classes, and hence, for the block below a linear classifier, the size of back-prop's signal.
       There is no setting for the scale. Adam would hide it, SGD does not.
    2. The classifier is trained by its true gradient, its hidden layer included, to which the paper would send a random
       signal as well.
    3. The paper has no batch normalisation; here it goes backward exactly.
    4. tanh networks start from zero weights in the paper; ours have ReLU, for which that would be dead.
    5. Our e belongs to softmax and is divided by B. By default the author's code (anokland/dfa-torch) takes ``sigmoid -
       onehot``, the gradient of a binary cross-entropy summed over classes and over the batch: the weights' gradients
       are sums, not means. Its RMSprop hides the factor; SGD would not.

Reference numbers:
    From the paper's abstract: MNIST 1.45 % test error with dropout. biotorch's "DFA" broadcasts through a kernel and is
    another rule.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from consts import block_name
from datamodules.base import DataSpec
from methods._base import Traits
from methods._signal import SignalMethod, Trace
from model import Backbone
from sections.rules.dfa import DfaArgs


class DirectFeedbackAlignment(SignalMethod):
    """The signal is a random projection of the error at the logits."""

    TRAITS = Traits(isolation="broadcast")

    def __init__(self, args: DfaArgs, backbone: Backbone, spec: DataSpec) -> None:
        super().__init__(args, backbone, spec)
        self.feedback = nn.Module()  # a holder, so that the matrices have the blocks' names in the state dict
        for index in range(self.first_trainable, backbone.num_blocks):
            num_features = backbone.out_shapes[index].num_features
            bound = 1 / math.sqrt(num_features)
            matrix_ND = torch.empty(spec.num_classes, num_features).uniform_(-bound, bound)
            self.feedback.register_buffer(block_name(index), matrix_ND)

    def signal(self, index: int, trace: Trace, above_BCHW: Tensor) -> Tensor:
        """Project the error to block ``index``: ``B_i e`` in the shape, type and memory order of ``above_BCHW``."""
        signal_BD = self.project(self.feedback.get_buffer(block_name(index)), trace)
        return torch.empty_like(above_BCHW).copy_(signal_BD.view_as(above_BCHW))

    def project(self, matrix_ND: Tensor, trace: Trace) -> Tensor:
        """``B_i e``, (B, D)."""
        return trace.error_BN @ matrix_ND.to(trace.error_BN.dtype)
