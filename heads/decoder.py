"""Decoders: from a block's output back to an image."""

from __future__ import annotations

from torch import nn

from layers.convolution import Conv2d
from model import Shape


def decoder(shape: Shape, image: Shape, upsample_type: str | None) -> nn.Module:
    """Up-sampling by doubling, then Conv 1x1 to the image's channels; nothing bounds the output.

    Args:
        shape: of the block's output.
        image: of the image.
        upsample_type: ``transposed``, ``bilinear`` (`UPSAMPLERS`), or None for no up-sampling.

    Every doubling halves the channels. The side doubles for as long as it stays within the image's, so a side that is
    not the image's over a power of two ends below it.
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
    """Conv 1x1, then bilinear interpolation; neighbouring pixels cannot come apart in a checkerboard.

    A 1x1 convolution and an interpolation commute, and in this order the convolution has a quarter of the work.
    """
    convolution = Conv2d(in_channels, out_channels, 1, bias=False)
    return nn.Sequential(convolution, nn.Upsample(scale_factor=2, mode="bilinear"))


UPSAMPLERS = {"transposed": transposed, "bilinear": bilinear}
