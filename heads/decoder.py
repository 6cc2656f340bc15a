"""Decoders: from a block's output to an image, for losses of reconstruction."""

from __future__ import annotations

from torch import nn

from layers.convolution import Conv2d
from model import Shape


def decoder(shape: Shape, image: Shape, upsample_type: str | None) -> nn.Module:
    """Up-sampling by factors of two, each with BN and ReLU, then Conv 1x1 to the image's channels; no sigmoid.

    Args:
        shape: of the block's output.
        image: of the image.
        upsample_type: ``transposed``, ``bilinear`` (`UPSAMPLERS`), or None for no up-sampling.

    Every factor of two in size halves the channels. The size doubles while it stays within the image's. Where it is not
    the image's divided by a power of two, the output is smaller than the image.
    """
    layers: list[nn.Module] = []
    while upsample_type and 2 * shape.height <= image.height and 2 * shape.width <= image.width:
        channels = max(shape.channels // 2, 1)
        layers += [UPSAMPLERS[upsample_type](shape.channels, channels), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        shape = Shape(channels, 2 * shape.height, 2 * shape.width)
    layers.append(Conv2d(shape.channels, image.channels, 1))
    return nn.Sequential(*layers)


def small_decoder(shape: Shape, image: Shape) -> nn.Module:
    """InfoPro's decoder (arXiv 2101.10832) without its sigmoid: interpolate, Conv 3x3 to 12 - BN - ReLU - Conv 3x3."""
    return nn.Sequential(
        nn.Upsample((image.height, image.width), mode="bilinear", align_corners=True),
        Conv2d(shape.channels, 12, 3, padding=1, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(inplace=True),
        Conv2d(12, image.channels, 3, padding=1),
    )


def transposed(in_channels: int, out_channels: int) -> nn.Module:
    """ConvTranspose 2x2 with stride 2 (AlonNT/Thesis, commit fd01e04); without bias, a BatchNorm follows."""
    return nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=False)


def bilinear(in_channels: int, out_channels: int) -> nn.Module:
    """Conv 1x1, then bilinear interpolation, which avoids the checkerboard artefacts of a transposed convolution.

    A 1x1 convolution and an interpolation commute, and in this order the convolution costs a quarter.
    """
    convolution = Conv2d(in_channels, out_channels, 1, bias=False)
    return nn.Sequential(convolution, nn.Upsample(scale_factor=2, mode="bilinear"))


UPSAMPLERS = {"transposed": transposed, "bilinear": bilinear}
