"""Auxiliary classifiers: from a block's output to logits. They are most of what a local method costs."""

from __future__ import annotations

from torch import nn

from heads.fixed import FixedLinear, UnitVector, channelwise, random_weights, waves
from layers.convolution import Conv2d
from layers.pooling import AvgPool2d
from model import Shape, mlp

DIM_IN_DECODER = 2048  # anokland/local-loss, CIFAR-10 runs of VGG8b and VGG11b


def average_pool(shape: Shape, size: int) -> tuple[nn.Module, Shape]:
    """A layer that average-pools to ``size`` x ``size`` with one fixed kernel, and the shape of its output.

    `nn.AdaptiveAvgPool2d` is not used: its backward has no deterministic CUDA kernel (pytorch#108341). A side that is
    not longer than ``size`` stays. Where ``size`` does not divide the side, windows overlap by the remainder. They are
    those of `nn.AdaptiveAvgPool2d` for remainders of 0 and 1, as always for ``size`` 2, and longer for others: from 16
    to 7 the first two of ours are 0-3 and 2-5, of torch's 0-2 and 2-4.
    """
    if shape.height <= size and shape.width <= size:
        return nn.Identity(), shape
    height, width = min(shape.height, size), min(shape.width, size)
    strides = (shape.height // height, shape.width // width)
    kernels = (shape.height - (height - 1) * strides[0], shape.width - (width - 1) * strides[1])
    return AvgPool2d(kernels, strides), Shape(shape.channels, height, width)


def flatten_mlp(shape: Shape, num_classes: int, n_hidden_layers: int, hidden_dim: int) -> nn.Module:
    """Flatten - [Linear - ReLU] x n - Linear on the full map (AlonNT/Thesis), the head with the most parameters."""
    return mlp(shape.num_features, num_classes, n_hidden_layers, hidden_dim)


def convolutional(shape: Shape, num_classes: int, n_hidden_layers: int, hidden_dim: int) -> nn.Module:
    """Conv 3x3 - BN - ReLU - MaxPool 2x2, then `flatten_mlp` (AlonNT/Thesis, commit e250921)."""
    channels = shape.channels
    layers: list[nn.Module] = [
        Conv2d(channels, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    ]
    if min(shape.height, shape.width) >= 2:
        layers.append(nn.MaxPool2d(2))
        shape = shape.halved()
    return nn.Sequential(*layers, mlp(shape.num_features, num_classes, n_hidden_layers, hidden_dim))


def pooled(shape: Shape, num_classes: int, n_hidden_layers: int, hidden_dim: int) -> nn.Module:
    """Average-pool to 2x2, then `flatten_mlp`: few parameters at any resolution (after Belilovsky 2020, section 4)."""
    pool, small = average_pool(shape, 2)
    return nn.Sequential(pool, mlp(small.num_features, num_classes, n_hidden_layers, hidden_dim))


def mlp_sr(shape: Shape, num_classes: int, n_hidden_layers: int, hidden_dim: int) -> nn.Module:
    """The MLP-SR head of DGL (Belilovsky et al. 2020, arXiv 1901.08164; eugenium/DGL ``auxiliary_nets_study``).

    Average-pool to a quarter of the side, three times Conv 1x1 - BN - ReLU, average-pool to 2x2, then
    ``n_hidden_layers`` times Linear - BN - ReLU of width 4C, Linear. ``hidden_dim`` is not used. The paper has three
    hidden layers; the default of ``--aux_mlp_n_hidden_layers`` is 1. Maps of 4x4 and less are pooled to 2x2 at once.
    """
    quarter = -(-min(shape.height, shape.width) // 4)
    pool, small = average_pool(shape, max(quarter, 2))  # theirs pools a 4x4 map to one pixel and copies it to 2x2 later
    layers: list[nn.Module] = [pool]
    for _ in range(3):
        convolution = Conv2d(shape.channels, shape.channels, 1, bias=False)
        layers += [convolution, nn.BatchNorm2d(shape.channels), nn.ReLU(inplace=True)]
    pool, small = average_pool(small, 2)
    layers += [pool, nn.Flatten()]
    width, features = 4 * shape.channels, small.num_features
    for _ in range(n_hidden_layers):
        layers += [nn.Linear(features, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, num_classes))


def one_convolution(shape: Shape, num_classes: int, n_hidden_layers: int, hidden_dim: int) -> nn.Module:
    """InfoPro's 1c2f (arXiv 2101.10832): Conv 3x3 - BN - ReLU, average over the map, `flatten_mlp`.

    On maps of 16x16 pixels or more the convolution has stride 2 and doubles the channels. Theirs does so in the first
    two of three stages of a ResNet, whatever the size of the map: the same for images of 32x32 pixels, but not for
    96x96, whose third stage still has maps of 24x24. Their hidden layer has 128 units.
    """
    large = min(shape.height, shape.width) >= 16
    channels, stride = (2 * shape.channels, 2) if large else (shape.channels, 1)
    pool, small = average_pool(Shape(channels, -(-shape.height // stride), -(-shape.width // stride)), 1)
    return nn.Sequential(
        Conv2d(shape.channels, channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        pool,
        mlp(small.num_features, num_classes, n_hidden_layers, hidden_dim),
    )


def full_resolution(shape: Shape, num_classes: int, n_hidden_layers: int, hidden_dim: int) -> nn.Module:
    """The head of greedy training (Belilovsky et al. 2019, arXiv 1812.11446; eugenium/layerCNN).

    ``n_hidden_layers`` times Conv 3x3 - BN - ReLU that keep channels and size, average-pool to 2x2, BN, Linear
    (``hidden_dim`` is not used). The paper counts the block's own layer, so its k is ``n_hidden_layers`` + 1.
    """
    layers: list[nn.Module] = []
    for _ in range(n_hidden_layers):
        convolution = Conv2d(shape.channels, shape.channels, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(shape.channels), nn.ReLU(inplace=True)]
    pool, small = average_pool(shape, 2)
    layers += [pool, nn.BatchNorm2d(small.channels), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(small.num_features, num_classes))


def convolutions(shape: Shape, num_classes: int, n_hidden_layers: int, hidden_dim: int) -> nn.Module:
    """[Conv 3x3 - ReLU] x n of ``hidden_dim`` channels, Linear on the full map.

    With one convolution of 128 channels it is the local critic of Lee et al. 2018 (arXiv 1805.01128; hjdw2/
    Local-critic-training): no normalisation, no pool, no bias in the convolution.
    """
    layers: list[nn.Module] = []
    for _ in range(n_hidden_layers):
        layers += [Conv2d(shape.channels, hidden_dim, 3, padding=1, bias=False), nn.ReLU(inplace=True)]
        shape = shape._replace(channels=hidden_dim)
    return nn.Sequential(*layers, mlp(shape.num_features, num_classes, 0, 0))


def pool_to_at_most(shape: Shape, num_features: int) -> tuple[nn.Module, Shape]:
    """A layer that average-pools to at most ``num_features`` values, or one per channel, and the shape of its output.

    The kernel's height and width double in turn, height first, as in anokland/local-loss. Where a kernel does not
    divide the map, the last window averages the rows or columns that are left.
    """
    channels, sides = shape.channels, [shape.height, shape.width]
    kernels, sizes, axis = [1, 1], list(sides), 0
    while channels * sizes[0] * sizes[1] > num_features and max(sizes) > 1:
        if sizes[axis] > 1:
            kernels[axis] = min(2 * kernels[axis], sides[axis])
            sizes[axis] = -(-sides[axis] // kernels[axis])
        axis = 1 - axis
    pool = nn.Identity() if kernels == [1, 1] else AvgPool2d((kernels[0], kernels[1]), ceil_mode=True)
    return pool, Shape(channels, sizes[0], sizes[1])


def linear(
    shape: Shape, num_classes: int, n_hidden_layers: int = 0, hidden_dim: int = 0, num_features: int = DIM_IN_DECODER
) -> nn.Module:
    """`pool_to_at_most` ``num_features``, then one Linear that starts at zero (Nokland & Eidnes 2019).

    At the first step it sends no gradient to the block. It has no hidden layers: ``n_hidden_layers`` and
    ``hidden_dim`` are not used.
    """
    pool, small = pool_to_at_most(shape, num_features)
    layer = nn.Linear(small.num_features, num_classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(pool, nn.Flatten(), layer)


def bias_free(shape: Shape, num_classes: int, n_hidden_layers: int = 0, hidden_dim: int = 0) -> nn.Module:
    """A linear layer without bias on the full map (Mono-Forward); the last two arguments are not used."""
    return nn.Sequential(nn.Flatten(), nn.Linear(shape.num_features, num_classes, bias=False))


def lls(shape: Shape, num_classes: int, n_hidden_layers: int = 0, hidden_dim: int = 0) -> nn.Module:
    """Average-pool to 4x4, unit length, products with `waves`; the last two arguments are not used."""
    pool, small = average_pool(shape, 4)
    return nn.Sequential(pool, nn.Flatten(), UnitVector(), FixedLinear(waves(num_classes, small.num_features)))


def fixed_random(shape: Shape, num_classes: int, n_hidden_layers: int = 0, hidden_dim: int = 0) -> nn.Module:
    """Average-pool to 2x2, products with fixed `random_weights`; the last two arguments are not used."""
    pool, small = average_pool(shape, 2)
    return nn.Sequential(pool, nn.Flatten(), FixedLinear(random_weights(num_classes, small.num_features)))


CLASSIFIERS = {
    "mlp": flatten_mlp, "cnn": convolutional, "pooled": pooled, "mlp_sr": mlp_sr, "linear": linear,
    "1c2f": one_convolution, "cnn_full": full_resolution, "conv": convolutions, "monoforward": bias_free,
    "channelwise": channelwise, "lls": lls, "random": fixed_random,
}  # fmt: skip
