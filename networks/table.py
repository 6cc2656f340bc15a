"""The networks of the table in `consts.py`: plain convolutions with pools, and CIFAR's residual networks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from consts import NETWORKS, POOL, Architecture
from layers.convolution import Conv2d
from layers.dropout import Dropout
from layers.local import LocallyConnected2d
from layers.pooling import AvgPool2d
from model import Backbone, Block, InputSpec, Shape, mlp
from networks.patches import patch_blocks, without_dropout
from schemas import ModelArgs
from utils import UsageError


def build_from_table(args: ModelArgs, spec: InputSpec, num_skipped_blocks: int) -> Backbone:
    """A network of the table; arguments and errors as those of `networks.build_backbone`. Shapes by arithmetic.

    Raises:
        UsageError: the images are too small for the network's pools.
    """
    architecture = NETWORKS[args.model]
    image = Shape(spec.num_channels, spec.height, spec.width)
    smallest = 2**architecture.num_halvings
    if min(image.height, image.width) < smallest:
        raise UsageError(
            f"--model {args.model} halves the image {architecture.num_halvings} times and needs "
            f"{smallest}x{smallest} pixels or more, but these images are {image.height}x{image.width}: choose one with "
            "fewer pools, or MLP, which has none"
        )
    if architecture.patches:
        blocks = patch_blocks(architecture, image, args)
    else:
        build = residual_blocks if architecture.residual else plain_blocks
        blocks = build(architecture, image, num_skipped_blocks, args)
    shape = blocks[-1].out_shape
    average: list[nn.Module] = []
    if architecture.residual:
        average, shape = [AvgPool2d((shape.height, shape.width))], Shape(shape.channels, 1, 1)
    assert args.mlp_n_hidden_layers is not None and args.mlp_hidden_dim is not None  # resolved by the schema
    classifier = mlp(shape.num_features, spec.num_classes, args.mlp_n_hidden_layers, args.mlp_hidden_dim)
    return Backbone(blocks, nn.Sequential(*average, *classifier))


def plain_blocks(architecture: Architecture, shape: Shape, num_skipped_blocks: int, args: ModelArgs) -> list[Block]:
    """One block for each convolution, with the pool that follows it."""
    blocks: list[Block] = []
    for entry, following in zip(architecture.channels, (*architecture.channels[1:], None), strict=True):
        if isinstance(entry, int):
            channels = None if len(blocks) < num_skipped_blocks else entry
            pool, local = following == POOL, architecture.local
            blocks.append(convolutional_block(shape, channels, architecture.kernel_size, pool, args, local=local))
            shape = blocks[-1].out_shape
    return blocks


def residual_blocks(architecture: Architecture, shape: Shape, num_skipped_blocks: int, args: ModelArgs) -> list[Block]:
    """A convolution, then residual blocks."""
    blocks: list[Block] = []
    for index, (before, width) in enumerate(zip((None, *architecture.channels), architecture.channels, strict=False)):
        assert isinstance(width, int)
        channels = None if index < num_skipped_blocks else width
        if before is None:
            blocks.append(convolutional_block(shape, channels, architecture.kernel_size, False, args, bias=False))
        else:
            blocks.append(residual_block(shape, channels, width != before, args))
        shape = blocks[-1].out_shape
    return blocks


def convolutional_block(
    in_shape: Shape, channels: int | None, kernel_size: int, pool: bool, args: ModelArgs, bias: bool = True,
    local: bool = False,
) -> Block:  # fmt: skip
    """Conv-BN-ReLU(-Dropout)(-MaxPool), with weights of its own at every position if ``local``.

    Without ``channels`` only its pool.
    """
    features: nn.Module = nn.Identity()
    if channels is not None:
        mode, size = args.padding_mode, (in_shape.height, in_shape.width)
        convolution: nn.Module
        if local:
            convolution = LocallyConnected2d(in_shape.channels, channels, size, kernel_size, mode)
        else:
            padding = kernel_size // 2
            convolution = Conv2d(
                in_shape.channels, channels, kernel_size, padding=padding, padding_mode=mode, bias=bias
            )
        features = nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
    dropout = Dropout(args.dropout_prob) if channels and args.dropout_prob > 0 else nn.Identity()
    shape = Shape(channels or in_shape.channels, in_shape.height, in_shape.width)

    def again(in_shape: Shape, halve: bool) -> Block:
        return convolutional_block(in_shape, channels, kernel_size, halve, without_dropout(args), bias, local)

    return Block(features, shape, dropout, nn.MaxPool2d(2) if pool else nn.Identity(), again)


class Residual(nn.Module):
    """Conv-BN-ReLU-Conv-BN, plus the input, then ReLU (He et al., arXiv 1512.03385).

    To halve the map, the first convolution has stride 2 and the shortcut takes every other pixel; new channels get
    zeros from it: their option A, without parameters. (InfoPro and its followers have a 1x1 convolution there.)
    """

    def __init__(self, in_channels: int, channels: int, halve: bool, args: ModelArgs) -> None:
        super().__init__()
        self.new_channels, self.stride = channels - in_channels, 2 if halve else 1

        def convolution(in_channels: int, stride: int) -> nn.Module:
            return Conv2d(in_channels, channels, 3, stride, padding=1, padding_mode=args.padding_mode, bias=False)

        self.body = nn.Sequential(
            convolution(in_channels, self.stride),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            convolution(channels, 1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H / stride, W / stride), rounded up."""
        out_BCHW = self.body(x_BCHW)
        if self.stride > 1 or self.new_channels:
            x_BCHW = F.pad(x_BCHW[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
        return F.relu(out_BCHW + x_BCHW)


def residual_block(in_shape: Shape, channels: int | None, halve: bool, args: ModelArgs) -> Block:
    """`Residual`(-Dropout). Without ``channels`` only a 2x2 max-pool where the map is to be halved."""
    if channels is None:
        return convolutional_block(in_shape, None, 3, halve, args)
    height, width = (-(-side // 2) if halve else side for side in (in_shape.height, in_shape.width))
    dropout = Dropout(args.dropout_prob) if args.dropout_prob > 0 else nn.Identity()
    features = Residual(in_shape.channels, channels, halve, args)

    def again(in_shape: Shape, halve: bool) -> Block:
        return residual_block(in_shape, channels, halve, without_dropout(args))

    return Block(features, Shape(channels, height, width), dropout, nn.Identity(), again)
