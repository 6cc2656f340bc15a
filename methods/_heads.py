"""The classification heads of local methods: those that need a shape alone, and those made after the blocks above."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from torch import nn

from heads.auglocal import auglocal, pyramid_depth
from heads.classifiers import CLASSIFIERS
from heads.momentum import MomentumHead
from model import Shape

if TYPE_CHECKING:
    from methods._local import LocalMethod


def build_classifier(
    method: LocalMethod,
    index: int,
    shape: Shape,
    num_outputs: int,
    builders: Mapping[str, Callable[..., nn.Module]] = CLASSIFIERS,
) -> nn.Module:
    """A head of block ``index`` of the kind that ``--pred_aux_type`` and ``--man`` name.

    Args:
        method: it is asked for its settings and its network.
        index: the block.
        shape: of what the head reads: the block's output before its pool, or behind it.
        num_outputs: classes, or numbers in a vector.
        builders: the heads that need a shape alone, by name.
    """
    args, block = method.args, method.backbone.block(index)

    def plain(shape: Shape) -> nn.Module:
        build = builders[args.pred_aux_type]
        return build(shape, num_outputs, args.aux_mlp_n_hidden_layers, args.aux_mlp_hidden_dim)

    follows = args.man and index < method.last
    if args.pred_aux_type in builders and not follows:
        return plain(shape)
    if follows:
        above = method.backbone.block(index + 1).parts[0]
        head: nn.Module = MomentumHead(above.features, args.man_momentum, plain(above.features_shape))
    else:
        head = _auglocal(method, index, num_outputs)
    # What is like the blocks above reads what they read.
    return head if shape == block.out_shape else nn.Sequential(copy.deepcopy(block.pool), head)


def _auglocal(method: LocalMethod, index: int, num_outputs: int) -> nn.Module:
    """A head of the depth that is due at block ``index``; blocks that were joined count one by one."""
    args, backbone = method.args, method.backbone
    place = (index - method.first_trainable) / max(method.last - 1 - method.first_trainable, 1)
    depth = pyramid_depth(args.aux_depth, args.aux_pyramid, place)
    parts = [part for number in range(backbone.num_blocks) for part in backbone.block(number).parts]
    last_part = parts.index(backbone.block(index).parts[-1])
    return auglocal(backbone.out_shapes[index], num_outputs, parts, last_part, depth)
