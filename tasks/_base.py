"""The contract of an auxiliary task: a head for each block, a loss, and what it adds to a batch by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from torch import Tensor, nn

from consts import block_name
from datamodules.base import Batch, DataSpec
from model import Backbone, Shape
from sections.rule import MethodArgs


class Task(nn.Module, ABC):
    """One task for all of ``blocks``, with a head for each; the heads read the block's output before its pool.

    Args:
        args: the rule's settings, the tasks' among them.
        backbone: the network.
        spec: the data that it will see.
        blocks: those that learn the task; blocks that it does not fit (`fits`) have no head and no such loss.
    """

    def __init__(self, args: MethodArgs, backbone: Backbone, spec: DataSpec, blocks: Iterable[int]) -> None:
        super().__init__()
        self.args, self.num_blocks = args, backbone.num_blocks
        self.image = Shape(spec.num_channels, spec.height, spec.width)
        shapes = {index: backbone.block(index).features_shape for index in blocks}
        self.heads = nn.ModuleDict(
            {block_name(i): self.build_head(shape) for i, shape in shapes.items() if self.fits(shape)}
        )

    def fits(self, shape: Shape) -> bool:
        """Whether a block with a map of ``shape`` can learn the task."""
        return True

    def head(self, index: int) -> nn.Module:
        """The head of block ``index``."""
        return self.heads[block_name(index)]

    @abstractmethod
    def build_head(self, shape: Shape) -> nn.Module:
        """The head on a map of ``shape``."""

    def prepare(self, batch: Batch) -> Batch:
        """The batch that the blocks see: a task can add images without labels (`Batch.with_images`) or draw numbers."""
        return batch

    @abstractmethod
    def loss(self, index: int, features_BCHW: Tensor, batch: Batch) -> Tensor:
        """The task's loss on the output of block ``index`` for a prepared batch."""

    def pictures(self, index: int, features_BCHW: Tensor, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """The images that the head should draw and those it draws, (B, C, H, W) each, normalised; None without any."""
        return None
