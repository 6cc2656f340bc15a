"""Local methods: every block learns from a loss of its own, and no gradient crosses a block's border."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from consts import block_name
from datamodules.base import Batch, DataSpec
from methods._base import Method, StepOutput
from model import Backbone
from schemas import LocalArgs


class Hidden(NamedTuple):
    """A block's output with its graph, before its dropout and pool and behind them."""

    features_BCHW: Tensor
    out_BCHW: Tensor


class BlockOutput(NamedTuple):
    """What training a block on one batch leaves behind, without a graph."""

    out_BCHW: Tensor
    loss: Tensor
    logits_BN: Tensor | None


class LocalMethod(Method):
    """Forward on the detached input, loss, backward at once, hand the detached output on.

    The graph of a block is freed before the next block runs, so memory is that of the largest block. The output
    handed on was computed *before* the block's update; that makes any schedule of the blocks, pipelines included,
    give the same bits.
    """

    def __init__(self, args: LocalArgs, backbone: Backbone, spec: DataSpec) -> None:
        super().__init__(args, backbone, spec)
        self.heads = nn.ModuleDict(
            {block_name(i): self.build_heads(i, spec) for i in range(self.first_trainable, self.last)}
        )

    @abstractmethod
    def build_heads(self, index: int, spec: DataSpec) -> nn.Module:
        """The heads of block ``index``; not asked for the last, whose head is the classifier."""

    @abstractmethod
    def block_loss(self, index: int, hidden: Hidden, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The loss of block ``index``, with its graph, and the logits of its classification head where it has one."""

    def head(self, index: int) -> nn.Module:
        """The heads of block ``index``, or the classifier for the last."""
        return self.backbone.classifier if index == self.last else self.heads[block_name(index)]

    def block_heads(self, index: int) -> list[nn.Module]:
        """The heads trained with block ``index``."""
        return [self.head(index)]

    def run_block(self, index: int, x_BCHW: Tensor) -> Hidden:
        """Forward block ``index`` on an input without a graph."""
        block = self.backbone.block(index)
        features_BCHW = block.features(x_BCHW)
        return Hidden(features_BCHW, block.pool(block.dropout(features_BCHW)))

    def fill_block_grads(self, index: int, x_BCHW: Tensor, batch: Batch) -> BlockOutput:
        """Train one block on its detached input; all that a layer-parallel stage needs of the method."""
        hidden = self.run_block(index, x_BCHW)
        loss, logits_BN = self.block_loss(index, hidden, batch)
        out_BCHW = hidden.out_BCHW.detach()
        del hidden  # autograd frees what it has used as it goes down; nobody else may hold on to the largest map
        loss.backward()
        return BlockOutput(out_BCHW, loss.detach(), None if logits_BN is None else logits_BN.detach())

    def run_frozen(self, x_BCHW: Tensor) -> Tensor:
        """The input of the first trainable block."""
        with torch.no_grad():
            for block in self.backbone.blocks[: self.first_trainable]:
                x_BCHW = block(x_BCHW)
        return x_BCHW

    def fill_grads(self, batch: Batch) -> StepOutput:
        """Train every block on one batch, each graph freed before the next is built."""
        h_BCHW = self.run_frozen(batch.x_BCHW)
        logits: list[Tensor | None] = [None] * self.first_trainable
        losses: list[Tensor | None] = [None] * self.first_trainable
        for index in range(self.first_trainable, self.backbone.num_blocks):
            h_BCHW, loss, logits_BN = self.fill_block_grads(index, h_BCHW, batch)
            logits.append(logits_BN)
            losses.append(loss)
        return StepOutput(logits, losses)

    def exit_logits(self, index: int, hidden: Hidden) -> Tensor | None:
        """Logits of block ``index``; a method whose heads do not all classify overrides it."""
        return self.head(index)(hidden.out_BCHW)

    def block_logits(self, x_BCHW: Tensor) -> list[Tensor | None]:
        """Inference at every exit."""
        h_BCHW = self.run_frozen(x_BCHW)
        logits: list[Tensor | None] = [None] * self.first_trainable
        for index in range(self.first_trainable, self.backbone.num_blocks):
            hidden = self.run_block(index, h_BCHW)
            logits.append(self.exit_logits(index, hidden))
            h_BCHW = hidden.out_BCHW
        return logits
