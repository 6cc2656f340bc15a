"""Direct random target projection: every block receives the label through a fixed random matrix.

Paper:
    Frenkel, Lefebvre, Bol 2021, "Learning Without Feedback: Fixed Random Learning Signals Allow for Feedforward
    Training of Deep Neural Networks", arXiv 1909.01311; code ChFrenkel/DirectRandomTargetProjection.

Signal:
    Block i receives ``B_i y / B`` at its output, behind the pool, where y is the one-hot label, B the number of images
    and B_i a fixed random matrix as in dfa. It is known before the forward pass ends, so that no block waits for those
    above it; only the classifier learns from the error. For softmax or sigmoid outputs ``sign(p - y) = 1 - 2 y``, so it
    is, up to a constant and a factor, dfa with the sign of the error.

Cost:
    As dfa. No block needs what lies above it, but this implementation runs the whole forward pass first.

Deviations:
    1. The signal enters behind the pool, as dfa's; theirs before it.
    2. It is divided by the number of images, as the classifier's gradient is. Theirs is not, which Adam hides.
    3. B_i is uniform within 1 / sqrt(num_features), as dfa's; theirs within sqrt(6 / num_features).
    4. ReLU, BatchNorm and softmax; theirs are tanh and sigmoid outputs without normalisation.

Reference numbers:
    From the comparison in "Counter-Current Learning" (2024), MLPs with tanh, SGD, 100 epochs, test accuracy: MNIST
    92.16 % (back-propagation 98.19, dfa 97.27 %), CIFAR-10 33.85 % (50.03, 42.86 %).
"""

from __future__ import annotations

from torch import Tensor

from consts import block_name
from methods._base import Traits
from methods._broadcast import Broadcast
from methods._signal import Trace


class DirectRandomTargetProjection(Broadcast):
    """The signal is a random projection of the label."""

    TRAITS = Traits(isolation="block")

    def project(self, index: int, trace: Trace) -> Tensor:
        """``B_i y / B``, (B, D)."""
        y_B = trace.batch.y_B
        return self.feedback.get_buffer(block_name(index))[y_B] / len(y_B)
