"""Target methods: what a block is to give out instead, found by inverses that learn inside the step.

A block that is to give out t instead of h receives ``(h - t) / (beta B)``: the gradient of ``|h - t|^2 / 2``, a mean
over the B images, in units of the step beta that the targets were made with. So it has the size of back-propagation's
signal wherever targets are gradient steps, and every diagnostic of gradients applies.

Inverses are parameters of the rule. The optimiser steps them as further groups, like heads; what a batch asks of them
(`--inverse_steps`) is a loop of the rule's own. Everything here is computed in float32 or wider, because targets are
small differences.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from consts import INVERSE_LOSS, block_name
from datamodules.base import DataSpec
from heads.inverse import BlockInverse, Seen, Weights, run
from layers.normalisation import untracked
from methods._base import wide
from methods._signal import SignalMethod, Trace
from model import Backbone
from sections.inverses import ChainArgs, Inverses
from sections.rule import MethodArgs

Loss = Callable[[Weights], Tensor]
OUTPUT = "output"  # names the inverse of what the network puts out


class TargetMethod(SignalMethod):
    """The family of rules whose signals are differences between outputs and targets.

    Attributes:
        inverses: by block, what carries its target down; some rules have one of the ``output`` too.
        settings: how they learn.
        variance: of the noise that they learn from.
    """

    def __init__(self, args: MethodArgs, backbone: Backbone, spec: DataSpec) -> None:
        super().__init__(args, backbone, spec)
        self.settings = args.group(Inverses)
        self.variance = self.settings.inverse_noise**2
        self.inverses = nn.ModuleDict(self.build_inverses(spec))

    @abstractmethod
    def build_inverses(self, spec: DataSpec) -> dict[str, nn.Module]:
        """The inverses by name: that of their block, or ``output``, which is trained with the last block."""

    @abstractmethod
    def displacement(self, index: int, trace: Trace, above_BCHW: Tensor) -> Tensor:
        """Target of block ``index`` less its output, over beta, in float32 or wider.

        It is called from the top down, without a graph; ``above`` is what a block receives in back-propagation.
        """

    def own_heads(self, index: int) -> list[nn.Module]:
        """The inverses that are trained with block ``index``."""
        names = [block_name(index), *([OUTPUT] if index == self.last else [])]
        return [self.inverses[name] for name in names if name in self.inverses]

    def block_heads(self, index: int) -> list[nn.Module]:
        """The inverses that are trained with a block; for the last block also the classifier."""
        return [*self.own_heads(index), *super().block_heads(index)]

    def scaled_heads(self, index: int) -> tuple[str, float, list[nn.Module]]:
        """The inverses, with ``--inverse_rate_scale``."""
        return "inverse", self.settings.inverse_rate_scale, self.own_heads(index)

    def signal(self, index: int, trace: Trace, above_BCHW: Tensor) -> Tensor:
        """``(h - t) / (beta B)`` in the type and memory order of the map."""
        with torch.no_grad(), torch.autocast(above_BCHW.device.type, enabled=False), untracked(self.backbone):
            moved_BCHW = self.displacement(index, trace, wide(above_BCHW))
        return torch.empty_like(above_BCHW).copy_(moved_BCHW / -len(above_BCHW))

    def noise(self, like: Tensor, trace: Trace) -> Tensor:
        """Normal noise for every image, of the standard deviation ``--inverse_noise``."""
        kind: dict[str, Any] = {"dtype": like.dtype, "device": like.device, "generator": trace.batch.generator}
        drawn = trace.batch.rows_of_step(lambda count: torch.randn(count, *like.shape[1:], **kind))
        return drawn * self.settings.inverse_noise

    def learn_inverse(self, name: str, trace: Trace, loss: Loss) -> Weights:
        """Take the steps of one batch for the inverse ``name``, and return the weights that the last one starts from.

        ``loss`` is called once a step, with weights, and draws its own noise. All steps but the last move a copy of
        the weights. The sum of the steps' gradients is added to ``.grad``, so that a plain optimiser at the rate
        ``--inverse_step_size`` ends where all steps end. The graph of a step is freed before the next one begins.
        """
        own = [*self.inverses[name].parameters()]
        weights: Weights = own
        sums: list[Tensor] = []
        for _ in range(self.settings.inverse_steps):
            leaves = [weight.detach().requires_grad_() for weight in weights]
            with torch.enable_grad():
                value = loss(leaves)
            value.backward(inputs=leaves)
            grads = [leaf.grad for leaf in leaves if leaf.grad is not None]
            sums = [total + grad for total, grad in zip(sums, grads, strict=True)] if sums else grads
            pairs = zip(leaves, grads, strict=True)
            weights = [leaf.detach() - self.settings.inverse_step_size * grad for leaf, grad in pairs]
        for parameter, total in zip(own, sums, strict=True):
            parameter.grad = total if parameter.grad is None else parameter.grad + total
        place, kind = (block_name(self.last), f"output_{INVERSE_LOSS}") if name == OUTPUT else (name, INVERSE_LOSS)
        trace.parts[f"{place}/{kind}"] = value.detach()
        return [leaf.detach() for leaf in leaves]


class ChainMethod(TargetMethod):
    """Targets that go down block by block, each through the inverse of the block above.

    The last block's target is a step of ``--target_step`` down the gradient of each image's loss, so that its signal is
    back-propagation's; a rule may choose another (`top`).
    """

    args: ChainArgs

    def __init__(self, args: ChainArgs, backbone: Backbone, spec: DataSpec) -> None:
        super().__init__(args, backbone, spec)
        self.target_step = args.target_step

    def build_inverses(self, spec: DataSpec) -> dict[str, nn.Module]:
        """One of every block above another that learns."""
        return {block_name(i): self.build_inverse(i) for i in range(self.first_trainable + 1, self.last + 1)}

    def build_inverse(self, index: int, bias: bool = True) -> BlockInverse:
        """The inverse of block ``index``."""
        where = f"--{self.args.method}: {block_name(index)}"
        return BlockInverse(self.backbone.block(index), self.backbone.out_shapes[index - 1], where, bias)

    def inverse(self, index: int) -> BlockInverse:
        """That of block ``index``, typed."""
        inverse = self.inverses[block_name(index)]
        assert isinstance(inverse, BlockInverse)
        return inverse

    @abstractmethod
    def inverse_loss(self, index: int, x_BCHW: Tensor, seen: Seen, trace: Trace) -> Loss:
        """What the inverse of block ``index`` learns from, where the block made ``seen`` of ``x``."""

    def top(self, trace: Trace, above_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """The last block's target less its output, and the number by which this and all that follow are divided."""
        return -self.target_step * len(above_BCHW) * above_BCHW, above_BCHW.new_full((), self.target_step)

    def carry(self, index: int, x_BCHW: Tensor, seen: Seen, difference_BCHW: Tensor, weights: Weights) -> Tensor:
        """Target less output of the block below ``index``: that of ``index`` through its inverse, and corrected."""
        inverse = self.inverse(index)
        moved_BCHW = inverse.spread(seen.out_BCHW + difference_BCHW, seen) - inverse.spread(seen.out_BCHW, seen)
        return inverse(moved_BCHW, weights[:1])  # without the bias, which the correction takes away

    def displacement(self, index: int, trace: Trace, above_BCHW: Tensor) -> Tensor:
        """As in the family."""
        if index == self.last:
            difference_BCHW, unit = self.top(trace, above_BCHW)
        else:
            x_BCHW, (upper_BCHW, unit) = trace.inputs[index + 1], trace.kept.pop()
            assert x_BCHW is not None
            x_BCHW = wide(x_BCHW.detach())
            seen = run(self.backbone.block(index + 1), x_BCHW)
            loss = self.inverse_loss(index + 1, x_BCHW, seen, trace)
            weights = self.learn_inverse(block_name(index + 1), trace, loss)
            difference_BCHW = self.carry(index + 1, x_BCHW, seen, upper_BCHW, weights)
        trace.kept.append((difference_BCHW, unit))
        return difference_BCHW / unit
