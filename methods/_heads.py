"""The classification heads of local methods: those that need a shape alone, and those made after the blocks above."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from torch import nn

from heads.auglocal import auglocal, pyramid_depth
from heads.classifiers import CLASSIFIERS
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
    """A head of block ``index`` of the kind that ``--pred_aux_type`` names.

    Args:
        method: it is asked for its settings and its network.
        index: the block.
        shape: of what the head reads: the block's output before its pool, or behind it.
        num_outputs: classes, or numbers in a vector.
        builders: the heads that need a shape alone, by name.
    """
    args = method.args
    if args.pred_aux_type in builders:
        build = builders[args.pred_aux_type]
        return build(shape, num_outputs, args.aux_mlp_n_hidden_layers, args.aux_mlp_hidden_dim)
    # What is like the blocks above sees what they see.
    block, blocks = method.backbone.block(index), [method.backbone.block(i) for i in range(method.backbone.num_blocks)]
    pool = [] if shape == block.out_shape else [copy.deepcopy(block.pool)]
    place = (index - method.first_trainable) / max(method.last - 1 - method.first_trainable, 1)
    depth = pyramid_depth(args.aux_depth, args.aux_pyramid, place)
    parts = [part for each in blocks for part in each.parts]
    last_part = sum(len(each.parts) for each in blocks[: index + 1]) - 1
    return nn.Sequential(*pool, auglocal(block.out_shape, num_outputs, parts, last_part, depth))
