"""The classification head of a block, of the kind that the settings name; some are made after the blocks above it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

from torch import nn

from heads.auglocal import auglocal, pyramid_depth
from heads.classifiers import CLASSIFIERS
from heads.momentum import MomentumHead
from model import Backbone, Shape
from sections.heads import Heads, Momentum
from sections.rule import MethodArgs


def build_classifier(
    args: MethodArgs,
    backbone: Backbone,
    index: int,
    shape: Shape,
    num_outputs: int,
    builders: Mapping[str, Callable[..., nn.Module]] = CLASSIFIERS,
) -> nn.Module:
    """A head of block ``index`` of the kind that ``--pred_aux_type`` and ``--man`` name.

    Args:
        args: the rule's settings.
        backbone: the network, its blocks joined to modules.
        index: the block.
        shape: of what the head reads: the block's output before its pool, or behind it.
        num_outputs: classes, or numbers in a vector.
        builders: the heads that need a shape alone, by name.
    """
    heads, momentum, block = args.group(Heads), args.group(Momentum), backbone.block(index)

    def plain(shape: Shape) -> nn.Module:
        build = builders[heads.pred_aux_type]
        return build(shape, num_outputs, heads.aux_mlp_n_hidden_layers, heads.aux_mlp_hidden_dim)

    follows = momentum.man and index < backbone.num_blocks - 1
    if heads.pred_aux_type in builders and not follows:
        return plain(shape)
    if follows:
        above = backbone.block(index + 1).parts[0]
        head: nn.Module = MomentumHead(above.features, momentum.man_momentum, plain(above.features_shape))
    else:
        head = _auglocal(args, backbone, index, num_outputs)
    # What is like the blocks above reads what they read.
    return head if shape == block.out_shape else nn.Sequential(copy.deepcopy(block.pool), head)


def _auglocal(args: MethodArgs, backbone: Backbone, index: int, num_outputs: int) -> nn.Module:
    """A head of the depth that is due at block ``index``; blocks that were joined count one by one."""
    heads, last = args.group(Heads), backbone.num_blocks - 1
    first = args.first_trainable_block % sum(len(backbone.block(number).parts) for number in range(last + 1))
    depth = pyramid_depth(heads.aux_depth, heads.aux_pyramid, (index - first) / max(last - 1 - first, 1))
    parts = [part for number in range(backbone.num_blocks) for part in backbone.block(number).parts]
    last_part = parts.index(backbone.block(index).parts[-1])
    return auglocal(backbone.out_shapes[index], num_outputs, parts, last_part, depth)
