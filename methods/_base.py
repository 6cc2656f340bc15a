"""The contract of a training rule: turn a batch into gradients, and nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

from torch import Tensor, nn

from consts import block_name
from datamodules.base import Batch, DataSpec
from model import Backbone
from sections.labels import Smoothing
from sections.rule import MethodArgs


@dataclass(frozen=True)
class Traits:
    """What a method may read; the contract tests enforce it.

    Attributes:
        isolation: whose parameters the gradient of a block depends on. ``block``: its own and those below;
            ``neighbour``: the next block's too; ``broadcast``: a signal from the top as well; ``none``: all.
        logits_in_training: whether a training step gives the exits' logits; not where they take passes of their own.
    """

    isolation: Literal["none", "block", "neighbour", "broadcast"]
    logits_in_training: bool = True


@dataclass(frozen=True)
class StepOutput:
    """Losses, logits and metrics of one batch; gradients are in ``.grad``. Device tensors without a graph.

    Attributes:
        logits: per block (B, N) logits of its classification head; None where it has none. The last is the network's,
            and is there if the traits' ``logits_in_training`` says so.
        losses: per block its scalar training loss; None where it has none.
        metrics: further scalars by name.
    """

    logits: Sequence[Tensor | None]
    losses: Sequence[Tensor | None]
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


class BlockResult(NamedTuple):
    """Loss and logits of one block on one batch, without a graph; ``parts``: terms of its loss by name, if any."""

    loss: Tensor
    logits_BN: Tensor | None
    parts: Mapping[str, Tensor]


def step_output(num_blocks: int, done: Mapping[int, BlockResult]) -> StepOutput:
    """Combine block results to one output for ``num_blocks``; None for the blocks that are not in ``done``."""
    blocks = range(num_blocks)
    parts = {f"{block_name(index)}/{name}": value for index in done for name, value in done[index].parts.items()}
    logits = [done[index].logits_BN if index in done else None for index in blocks]
    return StepOutput(logits, [done[index].loss if index in done else None for index in blocks], parts)


def wide(x: Tensor) -> Tensor:
    """The values in float32 or wider, for rules that take differences of them."""
    return x.float() if x.dtype.itemsize < 4 else x


def add_gradient(parameter: nn.Parameter, gradient: Tensor) -> None:
    """Add to ``.grad``, as a backward pass does."""
    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


class Phases:
    """Which blocks learn when: all of them at once, or one in each of as many phases (``--sequential``).

    Attributes:
        blocks: those that are trained in the run.
        count: number of phases.
        now: the present one, from 0.
    """

    def __init__(self, blocks: range, one_by_one: bool = False) -> None:
        self.blocks, self.count, self.now = blocks, len(blocks) if one_by_one else 1, 0

    @property
    def learning(self) -> range:
        """The blocks that learn now; those before them stay as they are."""
        return self.blocks if self.count == 1 else self.blocks[self.now : self.now + 1]


class Method(nn.Module, ABC):
    """A backbone together with the rule that trains it.

    Args:
        args: the method's own section of the settings.
        backbone: the network; becomes part of the method.
        spec: the data it will see.
    """

    TRAITS: ClassVar[Traits]

    def __init__(self, args: MethodArgs, backbone: Backbone, spec: DataSpec) -> None:
        super().__init__()
        self.args = args
        self.label_smoothing = args.group(Smoothing).label_smoothing
        self.first_trainable = args.first_trainable_block % backbone.num_blocks
        self.backbone = self.arrange(backbone, spec)
        self.phases = Phases(range(self.first_trainable, self.backbone.num_blocks))
        for block in self.backbone.blocks[: self.first_trainable]:
            block.requires_grad_(False)
        self.train()

    def arrange(self, backbone: Backbone, spec: DataSpec) -> Backbone:
        """The network as the method sees it; a family that trains several blocks as one overrides it."""
        return backbone

    @property
    def traits(self) -> Traits:
        """The traits with these settings; a setting may widen what the class declares."""
        return self.TRAITS

    @property
    def two_views(self) -> bool:
        """Whether it learns from two augmentations of every image (`Batch.second_BCHW`)."""
        return False

    @property
    def last(self) -> int:
        """Index of the last block."""
        return self.backbone.num_blocks - 1

    def train(self, mode: bool = True) -> Method:
        """Switch between training and evaluation; frozen blocks stay in evaluation, their statistics with them."""
        super().train(mode)
        for block in self.backbone.blocks[: self.phases.learning.start]:
            block.eval()
        return self

    def enter_phase(self, phase: int) -> None:
        """Let the blocks of ``phase`` learn from here on (`phases`); those before them are frozen."""
        self.phases.now = phase
        self.train(self.training)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Inference: (B, N) logits of the backbone alone."""
        return self.backbone(x_BCHW)

    @abstractmethod
    def fill_grads(self, batch: Batch) -> StepOutput:
        """Add this batch's gradients to ``.grad`` of the trainable parameters. The caller zeroes them and steps."""

    def block_logits(self, x_BCHW: Tensor) -> list[Tensor | None]:
        """Inference at every exit: logits of each block that has a classification head, else None."""
        return [None] * self.last + [self(x_BCHW)]

    def reconstructions(self, batch: Batch) -> Mapping[int, tuple[Tensor, Tensor]]:
        """By block, the images that its head was to draw and those it drew; empty for a method that draws none."""
        return {}

    def feedback_pairs(self, index: int) -> list[tuple[Tensor, Tensor]]:
        """Weights that carry a signal down through block ``index``, each with the forward weights it stands for.

        The classifier counts as the last block's. Both have one shape; empty for a rule that has no such weights.
        """
        return []

    def block_heads(self, index: int) -> list[nn.Module]:
        """The heads trained with block ``index``; the classifier counts as the last block's."""
        return [self.backbone.classifier] if index == self.last else []

    def scaled_heads(self, index: int) -> tuple[str, float, list[nn.Module]]:
        """Those of `block_heads` that have a learning rate of their own: what they are, its factor, and the heads."""
        return "", 1.0, []

    def param_groups(self) -> list[dict[str, Any]]:
        """Optimiser groups: one for each trainable block, named ``block_03``, its heads included.

        Heads with a learning rate of their own have a group beside it, named ``block_03/critic`` for example, with the
        factor on the rate as ``rate_scale``.
        """
        groups: list[dict[str, Any]] = []
        for index in range(self.first_trainable, self.backbone.num_blocks):
            kind, scale, scaled = self.scaled_heads(index)
            scaled = scaled if scale != 1 else []
            parts = [self.backbone.block(index), *self.block_heads(index)]
            own = [part for part in parts if not any(part is head for head in scaled)]
            groups.append({"name": block_name(index), "params": [p for part in own for p in part.parameters()]})
            if scaled:
                params = [p for part in scaled for p in part.parameters()]
                groups.append({"name": f"{block_name(index)}/{kind}", "params": params, "rate_scale": scale})
        return groups
