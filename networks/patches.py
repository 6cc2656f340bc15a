"""Networks without overlap: each unit of a block sees a patch of the map before, and each position is in one patch.

In ``MLP`` the patch is the whole map, so that a block is a linear layer with BatchNorm and ReLU. In ``TreeCNN`` and
``TreeLC`` it is ``--patch_size`` positions along every side that has more than one, with shared weights or with weights
of its own at each place: the shape of hierarchical data, and of circuits that are trees. Every block is what a
convolutional one is to the rules: a map, with a convolution (or locally connected layer) in front.
"""

from __future__ import annotations

from torch import nn

from consts import Architecture
from layers.convolution import Conv2d
from layers.dropout import Dropout
from layers.local import LocallyConnected2d
from model import Block, Shape
from schemas import ModelArgs
from utils import UsageError


def patch_blocks(architecture: Architecture, shape: Shape, args: ModelArgs) -> list[Block]:
    """``--num_layers`` blocks of ``--layer_width`` channels.

    Raises:
        UsageError: the sides of the image are no multiples of all the patches.
    """
    if architecture.patches == "tree":
        whole = args.patch_size**args.num_layers
        if any(side % whole for side in shape[1:] if side > 1) or shape.height == shape.width == 1:
            raise UsageError(
                f"--model {args.model}: with --num_layers {args.num_layers} and --patch_size {args.patch_size} the "
                f"sides of an image must be multiples of {whole}, or 1, but these images are "
                f"{shape.height}x{shape.width}"
            )
    blocks: list[Block] = []
    for _ in range(args.num_layers):
        blocks.append(patch_block(shape, True, architecture, args))
        shape = blocks[-1].out_shape
    return blocks


def patch_block(in_shape: Shape, shrink: bool, architecture: Architecture, args: ModelArgs) -> Block:
    """A layer over patches, BatchNorm, ReLU(, Dropout). A block of a tree that is not to ``shrink`` sees one place."""
    side = args.patch_size if shrink else 1
    tree = (min(side, in_shape.height), min(side, in_shape.width))
    patch = tree if architecture.patches == "tree" else (in_shape.height, in_shape.width)
    shape = Shape(args.layer_width, in_shape.height // patch[0], in_shape.width // patch[1])
    layer: nn.Module
    if architecture.local:
        layer = LocallyConnected2d(in_shape.channels, shape.channels, (in_shape.height, in_shape.width), patch)
    else:
        layer = Conv2d(in_shape.channels, shape.channels, patch, stride=patch)
    features = nn.Sequential(layer, nn.BatchNorm2d(shape.channels), nn.ReLU(inplace=True))
    dropout = Dropout(args.dropout_prob) if args.dropout_prob > 0 else nn.Identity()

    def again(in_shape: Shape, shrink: bool) -> Block:
        return patch_block(in_shape, shrink, architecture, without_dropout(args))

    return Block(features, shape, dropout, nn.Identity(), again)


def without_dropout(args: ModelArgs) -> ModelArgs:
    """The same network without dropout."""
    return args.model_copy(update={"dropout_prob": 0.0})
