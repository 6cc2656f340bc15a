"""Input modulation by the error: the image is shown again with the error added, and blocks learn from the difference.

Paper:
    Dellaferrera, Kreiman 2022, "Error-driven Input Modulation: Solving the Credit Assignment Problem without a Backward
    Pass", arXiv 2201.11665 (PEPITA); code GiorgiaD/PEPITA.

Signal:
    ``e = softmax - onehot`` of every image is carried to its pixels by a fixed random matrix F, and the network sees
    ``x' = x + F e``. With h the outputs of the first pass and h' those of the second, block i receives
    ``(h_i - h'_i) / B`` at its output in the second pass: of a linear block the gradient of the weights is
    ``(h_i - h'_i) h'_{i-1}^T / B``. The classifier receives e, on what it sees in the second pass. Numbers of F are
    uniform within ``sqrt(6 / pixels)`` times ``--projection_scale``. Where they are too large the classifier reads the
    error from its input, which is missing at inference.

Cost:
    Two passes forward and a backward pass inside every block. Nothing is sent from block to block but activations, and
    no weights are transported. ``num_classes * num_pixels`` floats for F.

Deviations:
    1. The published rule has no derivative inside a layer: it is written for layers of weights and an activation, whose
       slope it leaves out. Here a block goes backward by itself, through BatchNorm, ReLU and pool.
    2. BatchNorm has the statistics of the pass; the running ones are those of the first.
    3. A classifier with hidden layers learns by its own gradient.
    4. The published learning rates are 0.1 for dense layers and 0.01 for convolutions, with dropout of 10 %.
    5. Both passes are computed in float32 or wider, whatever the precision of the run, because of the difference.

Reference numbers:
    From an account of the paper, test accuracy: MNIST 98.01 % dense, 98.29 % convolutional; CIFAR-10 52.57 % dense,
    56.33 % convolutional (back-propagation there: 98.63 %, 98.86 %, 55.27 %, 64.99 %).
    Ours, ``--pepita --dataset digits --batch_size 32 --epochs 8``, one seed, test accuracy of the last epoch: BasicCNN
    48.9 %, VGGs 73.6 %, and ``--model MLP --learning_rate 0.05`` 95.3 %.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from datamodules.base import DataSpec
from methods._base import Traits
from methods._two_pass import TwoPass
from model import Backbone
from sections.rules.pepita import PepitaArgs


class InputModulation(TwoPass):
    """The error is added to the image through fixed random numbers."""

    TRAITS = Traits(isolation="broadcast")
    LEARNS_FROM = 1
    args: PepitaArgs
    projection_ND: Tensor

    def __init__(self, args: PepitaArgs, backbone: Backbone, spec: DataSpec) -> None:
        super().__init__(args, backbone, spec)
        num_pixels = spec.num_channels * spec.height * spec.width
        drawn_ND = 2 * torch.rand(spec.num_classes, num_pixels) - 1
        self.register_buffer("projection_ND", args.projection_scale * math.sqrt(6 / num_pixels) * drawn_ND)

    def change(self, error_BN: Tensor) -> Tensor:
        """``F e``."""
        return error_BN @ self.projection_ND
