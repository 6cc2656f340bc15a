"""Conditional decoupled neural interfaces: synthetic gradients whose synthesisers also read the label.

Paper:
    Jaderberg et al. 2016, "Decoupled Neural Interfaces using Synthetic Gradients", arXiv 1608.05343 (cDNI).

Signal:
    As in dni, with ``delta_i = S_i(sg(h_i), y) / (B sqrt(n_i))``: a linear map of the one-hot label is added to every
    position of the first convolution's output, before its BatchNorm. The true gradient is a function of output and
    label together, so without the label the best guess is an average over the labels that the output leaves open.

Cost:
    As dni; a table of N x C more weights per block.

Deviations:
    1. Those of dni.
    2. The label's map has no bias, because the BatchNorm behind it would subtract it.

Reference numbers:
    AlonNT/Thesis, CIFAR-10 test accuracy, best of 1500 epochs, BasicCNN without augmentation: 73.7 % (70.3 % at the
    end). eugenium/DGL, a like BasicCNN with crop and flip: best 84.15 %, last 80.86 %.
    Here, digits, ``python main.py --cdni --learning_rate 0.05 --dataset digits --model BasicCNN --epochs 8`` (CPU,
    bfloat16, seed 0), test accuracy: 61.9 %; with ``--unlock forward`` 65.6 %.
"""

from __future__ import annotations

from methods.dni import SyntheticGradients
from sections.rules.cdni import CdniArgs


class ConditionalSyntheticGradients(SyntheticGradients):
    """`SyntheticGradients` whose ``--context`` is on unless it is switched off."""

    args: CdniArgs
