"""Auxiliary heads of newly initialised blocks, shaped like later blocks of the network: ``--pred_aux_type auglocal``.

Paper:
    Ma, Wu, Si, Tan 2024, "Scaling Supervised Local Learning with Augmented Auxiliary Networks", arXiv 2402.17318; code
    ChenxiangMA/AugLocal.

Signal:
    The head of block l (of L, from 0) is d new blocks, ``--aux_depth``, then an average over the map and a linear layer
    (behind a BatchNorm if d is 1). Block i of them has the kind and the width of the network's block
    ``round(l + (L - 1 - l) i / d)``, evenly spread over the later ones; where there are d or fewer, the head has one
    for each. A block of the head halves the map if that is larger than the output of the block it is shaped like. No
    weight is shared. ``--aux_pyramid c`` makes later heads shallower: ``d (1 - c p) + c p`` blocks, rounded, with p
    from 0 at the first head to 1 at the last.
    In the paper the last d + 1 blocks are one module, trained by back-propagation, so that K blocks with depth d are
    K - d modules. That is ``--module_ends`` with the blocks from 0 to K - d - 2.

Cost:
    d blocks more for each block, forward and backward, and their graph together with the block's.

Deviations:
    1. The last d + 1 blocks are one module only where ``--module_ends`` says so; without it they have heads as well,
       shaped like all blocks that are left. A head with a single one has no BatchNorm if d is larger, as in their code,
       so that its layers are those of the rest of the network; it learns slowly (our study of the field's local rules).
    2. Shortcuts have no parameters, theirs a 1x1 convolution and a BatchNorm where the shape changes; weights have
       PyTorch's default initialisation, theirs He's.
    3. The rule is also applied to networks without residual blocks; the paper's CIFAR experiments are on ResNets.
    4. A block that was joined of several counts as several, and l is the last of them. Heads of predsim, which read a
       block's output before its pool, begin with that pool.

Reference numbers:
    The paper, as quoted in notes on its text, CIFAR-10 test accuracy, ResNet-110, 400 epochs: back-propagation 94.61 %,
    d = 6 93.96 %, and with every block isolated InfoPro 86.95 %, PredSim 74.95 %. We found none for ResNet-32.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from heads.classifiers import average_pool
from model import Block, Shape


def sampled(index: int, num_blocks: int, depth: int) -> list[int]:
    """Which later blocks the head of block ``index`` is shaped like: ``depth`` of them, evenly spread, or all."""
    following = num_blocks - 1 - index
    if depth >= following:
        return [*range(index + 1, num_blocks)]
    return [round(index + following / depth * i) for i in range(1, depth + 1)]


def pyramid_depth(depth: int, slope: float, place: float) -> int:
    """Blocks of the head at ``place``, from 0 at the first head to 1 at the last: linear, and at least one."""
    return max(1, round(depth * (1 - slope * place) + slope * place))


def auglocal(shape: Shape, num_classes: int, blocks: Sequence[Block], index: int, depth: int) -> nn.Module:
    """New blocks, average over the map, Linear.

    Args:
        shape: of what the head reads.
        num_classes: outputs.
        blocks: all blocks of the network, in order.
        index: the block that the head belongs to.
        depth: number of new blocks, if there are as many later ones.
    """
    layers: list[nn.Module] = []
    for number in sampled(index, len(blocks), depth):
        block = blocks[number].fresh(shape)
        layers.append(block)
        shape = block.out_shape
    pool, small = average_pool(shape, 1)
    norm = [nn.BatchNorm1d(small.channels)] if depth == 1 else []
    return nn.Sequential(*layers, pool, nn.Flatten(), *norm, nn.Linear(small.channels, num_classes))
