"""Cost and accuracy of the exits of a network: multiply-adds and parameters by part, and the accuracy of ensembles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.flop_counter import FlopCounterMode

from methods._base import Method
from utils import UserError


class Cost(NamedTuple):
    """The cost of a part of a network.

    Attributes:
        multiply_adds: of convolutions and linear layers, for one image; other operations are not counted.
        parameters: those that the part uses.
    """

    multiply_adds: int
    parameters: frozenset[nn.Parameter]

    @property
    def num_parameters(self) -> int:
        """Number of scalar parameters."""
        return sum(parameter.numel() for parameter in self.parameters)


class Costs(NamedTuple):
    """The cost of every part of a network with several exits."""

    blocks: Sequence[Cost]  # by block
    heads: Sequence[Cost]  # by block, of the layers that compute logits from its output
    exits: Sequence[int]  # indices of the blocks that have logits

    def of(self, exits: Iterable[int]) -> Cost:
        """Cost of the network with only these exits: the blocks up to the last of them, and their heads."""
        exits = [*exits]
        parts = [*self.blocks[: max(exits) + 1], *(self.heads[index] for index in exits)]
        return _sum(parts)


def measure_costs(method: Method, x_1CHW: Tensor) -> Costs:
    """Count operations and parameters in a forward pass of one image in evaluation mode; training mode is restored."""
    features = {method.backbone.block(index).features for index in range(method.backbone.num_blocks)}
    # The forward pass is divided into alternating parts: before block 0, block 0, its head, block 1, its head, ...
    # A rule that asks for every class in turn has as many passes.
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
        try:
            logits = method.block_logits(x_1CHW)
        except RuntimeError as error:  # a network that takes derivatives at inference
            raise UserError("the multiply-adds of this network cannot be counted, since it settles") from error
    method.train()
    # torch counts two operations for a multiply-add.
    totals = pairwise([*before, counter.get_total_flops()])
    _, *parts = (Cost((end - start) // 2, frozenset(own)) for (start, end), own in zip(totals, used, strict=True))
    exits = [index for index, out_BN in enumerate(logits) if out_BN is not None]
    once = 2 * method.phases.learning.stop
    whole = [_sum(parts[place::once]) for place in range(once)]
    return Costs(whole[0::2], whole[1::2], exits)


def _sum(parts: Sequence[Cost]) -> Cost:
    return Cost(sum(part.multiply_adds for part in parts), frozenset().union(*(part.parameters for part in parts)))


def exit_costs(method: Method, x_1CHW: Tensor) -> dict[int, int]:
    """Multiply-adds by exit of an image that leaves there: the blocks up to it, and the heads of all exits up to it."""
    costs = measure_costs(method, x_1CHW)
    return {index: costs.of(costs.exits[: place + 1]).multiply_adds for place, index in enumerate(costs.exits)}


def network_cost(method: Method, x_1CHW: Tensor) -> int:
    """Multiply-adds of one image in the network without auxiliary heads."""
    method.eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        method(x_1CHW)
    method.train()
    return counter.get_total_flops() // 2


def ensemble_accuracy(outputs_EPN: Tensor, y_P: Tensor) -> float:
    """Accuracy in percent of the exits' mean output, which may be probabilities or logits."""
    return 100 * float((outputs_EPN.mean(0).argmax(1) == y_P.to(outputs_EPN.device)).double().mean())
