"""Direct feedback alignment: every block receives the error at the logits through a matrix of its own.

Paper:
    Nokland 2016, "Direct Feedback Alignment Provides Learning in Deep Neural Networks", arXiv 1609.01596; the same as
    Baldi's skipped random back-propagation (arXiv 1612.02734, from which ``sparse``, ``few_bits``, ``adaptive`` and
    ``--ignore_derivative`` are). ``sign``: Frenkel, Lefebvre, Bol 2021, arXiv 1909.01311 (sDFA). ``low_rank``:
    Hanut, Kadmon 2025, arXiv 2502.20580 (LDFA). ``correlation``: Erdogan, Pehlevan, Erdogan 2025, "Error Broadcast and
    Decorrelation", arXiv 2504.11558 (EBD); with cross-entropy, as here, score broadcast (SBD, arXiv 2605.30638).
    ``bidirectional``: Luo, Fu, Glass 2017, arXiv 1702.07097 (BDFA).

Signal:
    Block i receives ``B_i e`` at its output, behind the pool, where ``e = (softmax - onehot) / B`` is the gradient of
    the mean loss at the logits and B_i a (num_features, num_classes) matrix: one value for each unit and class, kept
    transposed like the weight of a linear layer. Inside the block (convolution, normalisation, ReLU, pool) ordinary
    gradients are taken. ``--feedback`` says what is sent:

    - ``random``: B_i is drawn once; ``sparse``: every unit hears a share of the classes (``--feedback_density``).
    - ``sign``: ``B_i sign(e) / B``; ``few_bits``: e is rounded to ``--feedback_bits`` bits.
    - ``adaptive``: B_i learns as the weight of a linear classifier on h_i would, by the gradient ``sum e h_i^T``.
    - ``low_rank``: ``B_i = Q_i P_i`` of ``--feedback_rank``. Q_i learns so from P_i e; P_i comes to span the largest
      directions of the errors, by the gradient ``P C P^T P - P C`` with C the mean of ``e e^T`` over the images.
    - ``correlation``: B_i is the running average (``--correlation_momentum``) of the sum of ``h_i e^T`` over a batch.
      Of one batch, ``B_i e`` is the gradient of ``|B_i|^2 / 2`` with the errors held.
    - ``bidirectional``: B_i also draws the block's output from the label, ``g_i = relu(B_i y + c_i)``, and learns from
      the mean over the images of ``|g_i - h_i|^2 / 2``.

Cost:
    Back-prop's activations, since e is known at the end of the forward pass only, and ``num_features * num_classes``
    floats a block, those of a sparse matrix too: 2.6 MB for 64 maps of 32x32 and ten classes, and a hundred times as
    much for a thousand. What learns has a gradient and the optimiser's state as well, ``correlation`` only the product
    of a batch. ``low_rank`` has ``feedback_rank * (num_features + num_classes)`` floats in place of them. No block
    needs another's backward pass. This implementation runs them one after the other and still forms the unused gradient
    at every block's input, so a step takes no less time than back-prop's.

Deviations:
    1. B_i is uniform within 1 / sqrt(num_features), as in the author's code: the law of a linear layer from these
       features to the classes, and hence, for the block below a linear classifier, the size of back-prop's signal.
       There is no setting for the scale. Adam would hide it, SGD does not. What learns starts from it, and at a
       lower rate than the blocks (``--feedback_rate_scale``): of large maps its gradient is many times its size.
    2. The classifier is trained by its true gradient, its hidden layer included, to which the paper would send a random
       signal as well.
    3. The paper has no batch normalisation; here it goes backward exactly.
    4. tanh networks start from zero weights in the paper; ours have ReLU, for which that would be dead.
    5. Our e belongs to softmax and is divided by B. By default the author's code (anokland/dfa-torch) takes ``sigmoid -
       onehot``, the gradient of a binary cross-entropy summed over classes and over the batch: the weights' gradients
       are sums, not means. Its RMSprop hides the factor; SGD would not. ``sign`` is divided by B for the same reason.
    6. ``low_rank`` in its direct form, from the logits; ``bidirectional`` is our reading of its abstract.
    7. ``sign`` needs a tenth of the default learning rate or less. Its signal does not fade as the network learns, and
       its constant part, ``B_i 1 / B``, moves the shifts of the normalisation always the same way.
    8. With a short memory ``correlation`` fails: ``B_i e`` takes outputs out of correlation with the error, and that is
       not the loss's way down. With a long one the drawn B_i stays for a while and the network aligns with it.

Reference numbers:
    From the paper's abstract: MNIST 1.45 % test error with dropout. biotorch's "DFA" broadcasts through a kernel and is
    another rule.
"""

from __future__ import annotations

from torch import Tensor, nn

from consts import block_name
from datamodules.base import DataSpec
from layers.straight import straighten
from methods._base import Traits
from methods._broadcast import Broadcast, uniform
from methods._feedback import few_bits, sparse
from methods._learned import LEARNED, Learned, Seen
from methods._signal import Trace
from model import Backbone
from sections.rules.dfa import DfaArgs


class DirectFeedbackAlignment(Broadcast):
    """The signal is a projection of the error at the logits."""

    TRAITS = Traits(isolation="broadcast")
    args: DfaArgs

    def __init__(self, args: DfaArgs, backbone: Backbone, spec: DataSpec) -> None:
        super().__init__(args, backbone, spec)
        if args.ignore_derivative:
            straighten(*backbone.blocks[self.first_trainable :])

    @property
    def traits(self) -> Traits:
        """The sign of the error is known from the label, whatever the network says."""
        return Traits(isolation="block") if self.args.feedback == "sign" else self.TRAITS

    def give(self, name: str, num_classes: int, num_features: int) -> None:
        """A fixed matrix, or a module that learns."""
        if self.args.feedback in LEARNED:
            kind = LEARNED[self.args.feedback]
            self.feedback.add_module(name, kind(num_classes, num_features, self.args))
        elif self.args.feedback == "sparse":
            matrix_DN = sparse(uniform(num_classes, num_features).t(), self.args.feedback_density)
            self.feedback.register_buffer(name, matrix_DN.t().contiguous())
        else:
            super().give(name, num_classes, num_features)

    def block_heads(self, index: int) -> list[nn.Module]:
        """The feedback that is learned with block ``index``; the last block's classifier too."""
        feedback = getattr(self.feedback, block_name(index))
        return [*super().block_heads(index), *([feedback] if isinstance(feedback, nn.Module) else [])]

    def scaled_heads(self, index: int) -> tuple[str, float, list[nn.Module]]:
        """The feedback, with ``--feedback_rate_scale``."""
        feedback = getattr(self.feedback, block_name(index))
        if isinstance(feedback, Learned) and [*feedback.parameters()]:
            return "feedback", self.args.feedback_rate_scale, [feedback]
        return super().scaled_heads(index)

    def project(self, index: int, trace: Trace) -> Tensor:
        """``B_i e``, (B, D)."""
        feedback, out_BCHW = getattr(self.feedback, block_name(index)), trace.outputs[index]
        if isinstance(feedback, Learned):
            assert out_BCHW is not None
            signal_BD: Tensor = feedback(Seen(out_BCHW.detach().flatten(1), trace.error_BN, trace.batch.y_B))
            return signal_BD
        told_BN = self.told(trace.error_BN)
        return told_BN @ feedback.to(told_BN.dtype)

    def told(self, error_BN: Tensor) -> Tensor:
        """The error as it is broadcast to fixed matrices."""
        if self.args.feedback == "sign":
            return error_BN.sign() / len(error_BN)
        return few_bits(error_BN, self.args.feedback_bits) if self.args.feedback == "few_bits" else error_BN
