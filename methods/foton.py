"""Forward-only training with orthogonal weights: the error is taken to the image by the weights, and shown again.

Paper:
    "FOTON", ECAI 2025, arXiv 2512.20668; orthonormal weights after Bjorck, Bowie 1971, "An Iterative Algorithm for
    Computing the Best Estimate of an Orthogonal Matrix".

Signal:
    Two passes as in pepita: ``x' = x - F e`` with ``e = softmax - onehot`` of every image, and block i receives
    ``(h_i - h'_i) / B`` at its output in the first pass; the classifier receives its gradient. F is the product of all
    weights, ``W_1^T ... W_L^T``, from the logits to the pixels. Where the network is linear and the rows of every
    matrix are orthonormal, ``W_i ... W_1 F = W_{i+1}^T ... W_L^T``, and this is back-propagation exactly. So weights
    start orthonormal, and ``--orthonormal_weight`` adds ``(W W^T - I) W`` to their gradients, or ``W (W^T W - I)``
    where there are more rows than columns: half of it is a step of Bjorck's iteration.

Cost:
    Back-propagation's activations, a further pass, and one more of as many images as there are classes, forward and
    backward, where F is made anew. Made of the present weights at every step (``--refresh 1``, as published) F is a
    transport of weights, from all blocks to the image; with ``--refresh 0`` it stays what it was at the start.

Deviations:
    1. Weights are changed by the optimiser alone. Published are iterations of Bjorck's after each step.
    2. Of a convolution the kernels are orthonormal, as rows of a matrix. The map from image to image is so only where
       windows do not overlap.
    3. F leaves out biases, BatchNorm, activations and dropout, and has an average for a max-pool. Its rows are brought
       to length 1, which is theirs where matrices have orthonormal rows; else they grow with what the network learns.
    4. Inside a block ordinary gradients are taken, those of ReLU, BatchNorm and pool too.
    5. Widths should not grow from layer to layer: rows cannot be orthonormal where there are more of them than columns.
    6. Both passes are computed in float32 or wider, because of the difference.

Reference numbers:
    None that could be read. Its abstract says that it does better than pepita, and trains networks of 100 layers.
    Measured here with BasicCNN on digits, batches of 32, 8 epochs with the defaults, one seed: 92.5 % test accuracy of
    the last epoch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from consts import block_name
from datamodules.base import DataSpec
from layers.dropout import Dropout
from methods._base import Traits
from methods._two_pass import TwoPass
from model import ACTIVATIONS, Backbone, layers_of
from sections.rules.foton import FotonArgs
from utils import UsageError

WEIGHTED, LEFT_OUT = (nn.Conv2d, nn.Linear), (_BatchNorm, nn.Dropout, Dropout, *ACTIVATIONS)
KNOWN = (*WEIGHTED, *LEFT_OUT, nn.MaxPool2d, nn.AvgPool2d, nn.Flatten)
START_STEPS = 30  # of Bjorck's iteration, far more than it takes to converge


class ForwardOrthogonal(TwoPass):
    """The error is taken off the image through the network's own weights."""

    TRAITS = Traits(isolation="none")
    LEARNS_FROM = 0
    args: FotonArgs
    projection_ND: Tensor
    num_batches_tracked: Tensor

    def __init__(self, args: FotonArgs, backbone: Backbone, spec: DataSpec) -> None:
        super().__init__(args, backbone, spec)
        for index, part in enumerate(backbone.parts):
            for layer in layers_of(part):
                if not isinstance(layer, KNOWN):
                    name = "the classifier" if index > self.last else block_name(index)
                    raise UsageError(
                        f"--foton: {name} has a {type(layer).__name__}; allowed are convolutions and linear layers, "
                        "BatchNorm, dropout, pools and activations, one behind the other"
                    )
        self.image = (spec.num_channels, spec.height, spec.width)
        for layer in self.weighted(0):
            layer.weight.data.copy_(orthonormal(layer.weight.detach().flatten(1)).view_as(layer.weight))
        self.register_buffer("projection_ND", self.product())
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.int64))

    def weighted(self, first: int) -> list[nn.Conv2d | nn.Linear]:
        """The layers with weights, from block ``first`` on."""
        layers = layers_of(*self.backbone.parts[first:])
        return [layer for layer in layers if isinstance(layer, WEIGHTED)]

    def product(self) -> Tensor:
        """The product of all weights, from classes to pixels, (N, D), its rows of length 1."""
        kind = next(self.backbone.parameters())
        everything = layers_of(*self.backbone.parts)
        layers = [layer for layer in everything if not isinstance(layer, LEFT_OUT)]
        num_classes = self.weighted(0)[-1].weight.shape[0]
        x_NCHW = torch.zeros(num_classes, *self.image, dtype=kind.dtype, device=kind.device, requires_grad=True)
        with torch.enable_grad():
            h = x_NCHW
            for layer in layers:
                h = linear_part(layer, h)
            (found,) = torch.autograd.grad(h.diagonal().sum(), x_NCHW)
        return F.normalize(found.flatten(1))

    def change(self, error_BN: Tensor) -> Tensor:
        """``-F e``."""
        if self.args.refresh:
            is_due = (self.num_batches_tracked > 0) & (self.num_batches_tracked % self.args.refresh == 0)
            self.projection_ND.copy_(torch.where(is_due, self.product(), self.projection_ND))
        self.num_batches_tracked += 1
        return -error_BN @ self.projection_ND

    def constraint(self, part: nn.Module) -> Tensor | None:
        """A loss of the weights of ``part`` whose gradient is `excess` times ``--orthonormal_weight``."""
        weights = [layer.weight.flatten(1) for layer in layers_of(part) if isinstance(layer, WEIGHTED)]
        terms = [(weight * excess(weight.detach())).sum() for weight in weights]
        return self.args.orthonormal_weight * torch.stack(terms).sum() if terms else None


def linear_part(layer: nn.Module, h: Tensor) -> Tensor:
    """What ``layer`` does without its bias, and on average."""
    if isinstance(layer, nn.MaxPool2d):
        return F.avg_pool2d(h, layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)
    bias = getattr(layer, "bias", None)
    return layer(h) if bias is None else functional_call(layer, {"bias": torch.zeros_like(bias)}, (h,))


def excess(weight_OI: Tensor) -> Tensor:
    """``(W W^T - I) W``: 0 where the rows, or the columns if there are fewer, are orthonormal."""
    wide = weight_OI.shape[0] <= weight_OI.shape[1]
    return (weight_OI @ weight_OI.t() @ weight_OI if wide else weight_OI @ (weight_OI.t() @ weight_OI)) - weight_OI


def orthonormal(weight_OI: Tensor) -> Tensor:
    """The nearest matrix with orthonormal rows, or columns if there are fewer, by Bjorck's iteration."""
    weight_OI = weight_OI / torch.linalg.matrix_norm(weight_OI, 2)  # it converges from below the square root of 3
    for _ in range(START_STEPS):
        weight_OI = weight_OI - excess(weight_OI) / 2
    return weight_OI
