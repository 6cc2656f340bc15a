"""Back-propagation: the baseline that every other rule is measured against.

Paper:
    Rumelhart, Hinton, Williams 1986, "Learning representations by back-propagating errors".

Signal:
    Block i receives ``delta_i = J_{i+1}^T delta_{i+1}``, the gradient of the one loss at the top.

Cost:
    Every block's activations are alive when the backward pass begins.

Deviations:
    1. The graph is cut at every block and each piece is run backward by itself; the gradients are the bits that one
       `loss.backward()` gives (tested), and back-prop becomes the limit case of every rule that sends another signal.

Reference numbers:
    AlonNT/Thesis, CIFAR-10 test accuracy, best of 1500 epochs: BasicCNN 76.5 % without and 86.5 % with augmentation,
    VGG16 93.2 %, VGG11c 93.89 %.
"""

from __future__ import annotations

from torch import Tensor

from methods._base import Traits
from methods._signal import SignalMethod, Trace


class BackPropagation(SignalMethod):
    """The signal is the gradient from above, unchanged."""

    TRAITS = Traits(isolation="none")

    def signal(self, index: int, trace: Trace, above_BCHW: Tensor) -> Tensor:
        """The cotangent from above."""
        return above_BCHW
