"""A network as training rules see it: blocks in order and a classifier; joining blocks and cutting chains of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from layers.dropout import Dropout
from layers.saved import SavedBytes

# Those that work on every value alone; rules that must know where a block's activation is look for one of these.
ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Tanh)


class InputSpec(Protocol):
    """What a network must know of its data; `datamodules.base.DataSpec` has it."""

    @property
    def num_channels(self) -> int:
        """Colour channels."""

    @property
    def height(self) -> int:
        """Pixels."""

    @property
    def width(self) -> int:
        """Pixels."""

    @property
    def num_classes(self) -> int:
        """Number of labels."""


class Shape(NamedTuple):
    """Shape of one image or feature map, the batch left out."""

    channels: int
    height: int
    width: int

    @property
    def num_features(self) -> int:
        """Number of values in the map."""
        return self.channels * self.height * self.width

    def halved(self) -> Shape:
        """The shape behind a 2x2 pool, which drops an odd last row or column."""
        return Shape(self.channels, self.height // 2, self.width // 2)


def mlp(num_features: int, num_classes: int, n_hidden_layers: int, hidden_dim: int) -> nn.Sequential:
    """Flatten, then ``n_hidden_layers`` times Linear-ReLU, then Linear to (B, num_classes) logits."""
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(n_hidden_layers):
        layers += [nn.Linear(num_features, hidden_dim), nn.ReLU(inplace=True)]
        num_features = hidden_dim
    return nn.Sequential(*layers, nn.Linear(num_features, num_classes))


class Block(nn.Module):
    """The unit that is trained on its own: features, then dropout, then a pool.

    Attributes:
        features: all of it but dropout and pool.
        dropout: dropout, or identity.
        pool: 2x2 max-pool, or identity.
        features_shape: shape before the pool.
        out_shape: shape behind it.
        again: makes a block of the same kind and width, without dropout, from the shape of its input and whether it is
            to halve the map; None where that is not known.
    """

    def __init__(
        self,
        features: nn.Module,
        features_shape: Shape,
        dropout: nn.Module,
        pool: nn.Module,
        again: Callable[[Shape, bool], Block] | None = None,
    ) -> None:
        super().__init__()
        self.features, self.dropout, self.pool = features, dropout, pool
        self.features_shape = features_shape
        self.out_shape = features_shape if isinstance(pool, nn.Identity) else features_shape.halved()
        self.again = again
        self._parts: tuple[Block, ...] = ()  # of a joined block; no children of their own

    @property
    def parts(self) -> tuple[Block, ...]:
        """The blocks that it was joined of, or itself alone."""
        return self._parts or (self,)

    def fresh(self, in_shape: Shape) -> Block:
        """A new block like this one, but for dropout, on an input of ``in_shape``.

        It halves the map where that is still larger than this block's output. So a chain of such blocks comes down to
        the network's resolution also where some of its blocks have no counterpart in the chain.
        """
        assert self.again is not None
        _, height, width = self.out_shape
        return self.again(in_shape, in_shape.height > height or in_shape.width > width)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, *in_shape) to (B, *out_shape)."""
        return self.pool(self.dropout(self.features(x_BCHW)))


def layers_of(*modules: nn.Module) -> list[nn.Module]:
    """What runs one after the other in ``modules``: sequences and blocks dissolved, identities left out."""
    found: list[nn.Module] = []
    for module in modules:
        if isinstance(module, Block):
            found += layers_of(module.features, module.dropout, module.pool)
        elif type(module) is nn.Sequential:
            found += layers_of(*module)
        elif not isinstance(module, nn.Identity):
            found.append(module)
    return found


def merged(blocks: Sequence[Block]) -> Block:
    """One block that computes what ``blocks`` compute in turn; dropout and pool of the last stay its own."""
    if len(blocks) == 1:
        return blocks[0]
    last = blocks[-1]
    whole = Block(nn.Sequential(*blocks[:-1], last.features), last.features_shape, last.dropout, last.pool)
    whole._parts = tuple(part for block in blocks for part in block.parts)
    return whole


class Backbone(nn.Module):
    """Blocks in order, then the classifier.

    Attributes:
        blocks: list of `Block`.
        classifier: maps the last block's output to (B, num_classes) logits.
        out_shapes: output shape of every block.
    """

    def __init__(self, blocks: Sequence[Block], classifier: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.classifier = classifier
        self.out_shapes = [block.out_shape for block in blocks]

    def block(self, index: int) -> Block:
        """Block ``index``, typed."""
        block = self.blocks[index]
        assert isinstance(block, Block)
        return block

    @property
    def parts(self) -> list[nn.Module]:
        """The blocks in order, then the classifier."""
        return [*self.blocks, self.classifier]

    @property
    def num_blocks(self) -> int:
        """Number of blocks, the classifier not counted."""
        return len(self.blocks)

    def dropouts(self, index: int) -> list[Dropout]:
        """The dropout layers of block ``index``; those of the classifier belong to the last block."""
        parts = [self.block(index), *([self.classifier] if index == self.num_blocks - 1 else [])]
        return [layer for part in parts for layer in part.modules() if isinstance(layer, Dropout)]

    def key_dropout(self, index: int, key: int) -> None:
        """Give every dropout of block ``index`` a key for the step that follows, made from this one."""
        for place, dropout in enumerate(self.dropouts(index)):
            dropout.set_key((key + place) % 2**63)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits of shape (B, num_classes)."""
        for block in self.blocks:
            x_BCHW = block(x_BCHW)
        return self.classifier(x_BCHW)


def join(backbone: Backbone, ends: Sequence[int], first: int) -> Backbone:
    """The same network with the blocks from ``first`` on joined to modules, of which ``ends`` are the last blocks.

    The last block may be left out of ``ends``; blocks before ``first`` stay as they are.
    """
    blocks = [backbone.block(index) for index in range(backbone.num_blocks)]
    starts = [first, *(end + 1 for end in ends if end + 1 < len(blocks))]
    modules = [merged(blocks[start:after]) for start, after in zip(starts, [*starts[1:], len(blocks)], strict=True)]
    return Backbone([*blocks[:first], *modules], backbone.classifier)


def sum_of_squares(first: float, rest: float) -> float:
    """Price of a division for `cut`: as equal as can be."""
    return first**2 + rest


def cut(costs: Sequence[float], num_parts: int, price: Callable[[float, float], float]) -> tuple[int, ...]:
    """The index of the last element of each of ``num_parts`` runs of neighbours, none empty, of the least price.

    Args:
        costs: of every element, in order; at least as many as parts.
        num_parts: how many.
        price: of a division, from the cost of its first run and the price of the rest (0 where nothing is left):
            `sum_of_squares`, or ``max`` to make the largest cost as small as possible.

    Of several such divisions it is the one whose runs end first. Dynamic programming, exact.
    """
    sums, count = [0, *accumulate(costs)], len(costs)
    best: dict[int, tuple[float, tuple[int, ...]]] = {count: (0, ())}  # of what begins at a position, in so many parts
    for parts in range(1, num_parts + 1):
        best = {
            start: min(
                (price(sums[after] - sums[start], best[after][0]), (after - 1, *best[after][1]))
                for after in range(start + 1, count + 1)
                if after in best
            )
            for start in range(count - parts + 1)
        }
    return best[0][1]


def block_costs(backbone: Backbone, spec: InputSpec, kind: str) -> list[int]:
    """What every block costs: ``equal`` 1, ``flops`` its operations, ``memory`` bytes kept for the backward pass.

    Nothing is computed: a copy of the blocks runs on the meta device, forward, on two images.
    """
    if kind == "equal":
        return [1] * backbone.num_blocks
    from torch.utils.flop_counter import FlopCounterMode  # here, because it imports triton

    x_BCHW = torch.empty(2, spec.num_channels, spec.height, spec.width, device="meta")
    found = []
    for block in copy.deepcopy(backbone.blocks).to("meta"):
        counter, saved = FlopCounterMode(display=False), SavedBytes(block.parameters())
        with counter, saved.hooks:
            x_BCHW = block(x_BCHW).detach()
        found.append(counter.get_total_flops() if kind == "flops" else saved.peak_bytes)
    return found
