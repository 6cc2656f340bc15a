"""What the parts of a network cost: operations for an image, and parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.flop_counter import FlopCounterMode

from methods._base import Method


class Cost(NamedTuple):
    """What a part of a network costs.

    Attributes:
        flops: floating point operations for one image, counted by torch: two for a multiplication and addition in
            convolutions and linear layers, the rest is left out.
        parameters: those that it uses.
    """

    flops: int
    parameters: frozenset[nn.Parameter]

    @property
    def num_parameters(self) -> int:
        """How many numbers these are."""
        return sum(parameter.numel() for parameter in self.parameters)


class Costs(NamedTuple):
    """What every part of a network with exits costs.

    Attributes:
        blocks: by block.
        heads: by block, what turns its output into logits.
        exits: the blocks that have logits.
    """

    blocks: Sequence[Cost]
    heads: Sequence[Cost]
    exits: Sequence[int]

    def of(self, exits: Iterable[int]) -> Cost:
        """The network that has these exits only: blocks up to the last of them, and their heads."""
        exits = [*exits]
        parts = [*self.blocks[: max(exits) + 1], *(self.heads[index] for index in exits)]
        return Cost(sum(part.flops for part in parts), frozenset().union(*(part.parameters for part in parts)))


def measure_costs(method: Method, x_1CHW: Tensor) -> Costs:
    """Run ``method`` in evaluation mode on one image, see what is computed and with what, and leave it training."""
    features = {method.backbone.block(index).features for index in range(method.backbone.num_blocks)}
    # What is computed in turn: nothing, a block, the head on it, the next block, ...
    before: list[int] = [0]
    used: list[set[nn.Parameter]] = [set()]

    def begin() -> None:
        before.append(counter.get_total_flops())
        used.append(set())

    def enter(module: nn.Module, _: Any) -> None:
        if module in features:
            begin()
        used[-1].update(module.parameters(recurse=False))

    def leave(module: nn.Module, *_: Any) -> None:
        if module in features:
            begin()

    method.eval()
    with (
        torch.inference_mode(),
        FlopCounterMode(display=False) as counter,
        register_module_forward_pre_hook(enter),
        register_module_forward_hook(leave),
    ):
        logits = method.block_logits(x_1CHW)
    method.train()
    totals = pairwise([*before, counter.get_total_flops()])
    _, *parts = (Cost(end - start, frozenset(own)) for (start, end), own in zip(totals, used, strict=True))
    exits = [index for index, out_BN in enumerate(logits) if out_BN is not None]
    return Costs(parts[0::2], parts[1::2], exits)
