"""Heads whose way from the features to the logits does not learn: ``--pred_aux_type channelwise``, ``lls``, ``random``.

They have no parameters, so all learning is the block's. ``monoforward`` (`heads.classifiers.bias_free`) is one matrix
that learns.

Paper:
    ``channelwise``: Papachristodoulou, Kyrkou, Timotheou, Theocharides 2024, "Convolutional Channel-Wise Competitive
    Learning for the Forward-Forward Algorithm", arXiv 2312.12668. ``lls``: Apolinario, Roy, Roy 2025, "LLS: Local
    Learning Rule for Deep Neural Networks Inspired by Neural Activity Synchronization", WACV; code
    mapolinario94/LLS-DNN. ``random`` is that code's random basis; adaptive spatial goodness encoding (arXiv 2509.12394)
    and stochastic layer-wise learning (arXiv 2505.05181) also have fixed random weights. ``monoforward``: arXiv
    2501.09238.

Signal:
    Cross-entropy on a block's logits, as with any other head: ``channelwise`` the goodness of each class, which is the
    mean square of its share of the output, neighbouring channels; ``lls`` the products of the features, averaged to
    4x4 pixels at most and of unit length, with the waves ``sin(w_c j)``, w_c from 50 to 512 evenly, j the feature's
    index; ``random`` the products of features averaged to 2x2 with numbers of deviation 0.1; ``monoforward`` ``M h``.

Cost:
    No parameter but M, which sees the full map. ``lls`` and ``random`` keep N numbers for each feature they see.

Deviations:
    1. ``channelwise`` has the form in which other papers describe it; we have not read its own. Where the number of
       classes does not divide the output, shares differ by one value and may cut a channel.
    2. ``lls`` at temperature 1; the authors average to 2x2 in later layers. Their variants with a learned factor for
       each class, or a matrix, are left out. The frequencies are far above pi, so the waves are aliased: they are in
       effect a fixed random code.
    3. Of adaptive spatial goodness encoding and stochastic layer-wise learning we know only summaries: that their
       weights are fixed and random. ``random`` is no reproduction of either.

Reference numbers:
    As a later paper's table quotes it, CIFAR-10 test accuracy: channelwise 78.11 %. From an abstract, adaptive spatial
    goodness encoding 90.62 %. We found none for lls, and for monoforward claims of back-propagation's accuracy only.
    Ours, digits, VGGs with dgl, 8 epochs of batches of 32, one seed, test accuracy after the last, the two exits with
    such heads and the network: channelwise 13.9, 63.1, 97.8 %, lls 19.2, 65.8, 97.8 %, random 11.9, 45.8, 98.1 %,
    monoforward 96.7, 97.2, 98.9 %.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model import Shape
from utils import UsageError

LOWEST, HIGHEST = 50.0, 512.0  # radians from one feature to the next, of the first and the last class
DEVIATION = 0.1  # of random weights


class ChannelGoodness(nn.Module):
    """The mean square of the group of outputs that stands for each class, (B, N), in float32 or wider."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, h_BCHW: Tensor) -> Tensor:
        """A map of ones gives ones."""
        h_BCHW = h_BCHW.float() if h_BCHW.dtype.itemsize < 4 else h_BCHW
        shares = h_BCHW.square().flatten(1).tensor_split(self.num_classes, 1)
        return torch.stack([share.mean(1) for share in shares], 1)


class UnitVector(nn.Module):
    """Scales features (B, D) to unit length."""

    def forward(self, z_BD: Tensor) -> Tensor:
        """Zeros stay."""
        return F.normalize(z_BD, dim=1)


class FixedLinear(nn.Module):
    """A linear layer without bias that does not learn; the (N, D) weights are kept with the method."""

    weight_ND: Tensor

    def __init__(self, weight_ND: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight_ND", weight_ND)

    def forward(self, z_BD: Tensor) -> Tensor:
        """(B, N) logits."""
        return F.linear(z_BD, self.weight_ND)


def channelwise(shape: Shape, num_classes: int, n_hidden_layers: int = 0, hidden_dim: int = 0) -> nn.Module:
    """`ChannelGoodness`; the last two arguments are not used.

    Raises:
        UsageError: the output has fewer values than there are classes.
    """
    if shape.num_features < num_classes:
        raise UsageError(
            f"--pred_aux_type channelwise: a block has {shape.num_features} outputs, fewer than the {num_classes} "
            "classes that are to share them; choose another head"
        )
    return ChannelGoodness(num_classes)


def waves(num_classes: int, num_features: int) -> Tensor:
    """``sin(w_c j)``, (N, D); in float64 first, since the arguments are large."""
    frequency_N = torch.linspace(LOWEST, HIGHEST, num_classes, dtype=torch.float64)
    return torch.sin(frequency_N[:, None] * torch.arange(num_features, dtype=torch.float64)).float()


def random_weights(num_classes: int, num_features: int) -> Tensor:
    """Normal random weights of a fixed linear head, (N, D), drawn with torch's global generator."""
    return DEVIATION * torch.randn(num_classes, num_features)
