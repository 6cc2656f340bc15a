"""Local methods: every block learns from a loss of its own, and no gradient crosses a block's border."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from consts import CPC_LOSS, PRED_LOSS, SIMCLR_LOSS, SSL_LOSS, SUPCON_LOSS, block_name
from datamodules.base import Batch, DataSpec
from methods._base import BlockResult, Method, StepOutput, Traits, step_output
from methods._coarse import CoarseLabels
from methods._modules import Overlap, join
from methods._records import Hidden, labelled
from methods._sequential import Phases
from methods._ssl import SslTask
from methods._tasks import build_tasks
from model import Backbone
from objectives.classification import cross_entropy
from schemas import LocalArgs


class LocalMethod(Method):
    """Forward on the detached input, loss, backward at once, hand the detached output on.

    The graph of a block is freed before the next block runs, so memory is that of the largest block. The output
    handed on was computed *before* the block's update; that makes any schedule of the blocks, pipelines included,
    give the same bits.
    """

    args: LocalArgs

    def __init__(self, args: LocalArgs, backbone: Backbone, spec: DataSpec) -> None:
        super().__init__(args, backbone, spec)
        backbone = self.backbone  # its blocks may be modules now
        inner = range(self.first_trainable, self.last)
        self.phases = Phases(self.phases.blocks, args.sequential)
        self.num_classes = spec.num_classes
        self.coarse = CoarseLabels(spec, backbone.num_blocks) if args.coarse_labels_first else None
        self.heads = nn.ModuleDict({block_name(i): self.build_heads(i, spec) for i in inner if self.is_supervised(i)})
        # After the heads, so that these draw the same weights with and without the tasks.
        self.ssl, self.supcon, self.simclr, self.cpc = build_tasks(args, backbone, spec, inner)

    def arrange(self, backbone: Backbone, spec: DataSpec) -> Backbone:
        """Blocks joined to modules (``--num_modules``, ``--module_ends``); all that follows calls these blocks."""
        return join(self.args, backbone, self.first_trainable, spec)

    @property
    def traits(self) -> Traits:
        """With ``--overlap`` a block also learns from the losses above it; with ``--man`` it reads the next block."""
        reach = max(self.args.overlap, int(self.args.man))
        return self.TRAITS if not reach else Traits("neighbour" if reach == 1 else "none")

    @property
    def two_views(self) -> bool:
        """SimCLR's loss compares them."""
        return self.simclr is not None

    @abstractmethod
    def build_heads(self, index: int, spec: DataSpec) -> nn.Module:
        """The heads of block ``index``; not asked for the last, whose head is the classifier."""

    @abstractmethod
    def block_loss(self, index: int, hidden: Hidden, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The loss of block ``index``, with its graph, and the logits of its classification head where it has one."""

    @property
    def tasks(self) -> dict[str, SslTask]:
        """What blocks learn beside the method's own loss, by the name of its loss, in the order of their images."""
        found = {SIMCLR_LOSS: self.simclr, SSL_LOSS: self.ssl, SUPCON_LOSS: self.supcon, CPC_LOSS: self.cpc}
        return {name: task for name, task in found.items() if task is not None}

    def weight(self, name: str, index: int) -> float:
        """The weight of a loss (`PRED_LOSS` is the method's own) in what block ``index`` learns."""
        weight: float = getattr(self.args, f"{name}_weight")
        return weight if name != PRED_LOSS or self.args.ssl else 1.0

    def is_supervised(self, index: int) -> bool:
        """Whether block ``index`` learns from the method's own loss; the last always does, and from nothing else."""
        return index == self.last or self.weight(PRED_LOSS, index) > 0

    def labels(self, index: int, y_B: Tensor) -> tuple[Tensor, int]:
        """The labels that block ``index`` learns, and how many there are (``--coarse_labels_first``)."""
        return (y_B, self.num_classes) if self.coarse is None else self.coarse.labels(index, y_B)

    def classification_loss(self, index: int, logits_BN: Tensor, y_B: Tensor) -> Tensor:
        """Cross-entropy of block ``index`` against `labels`."""
        if self.coarse is not None:
            logits_BN = self.coarse.logits(index, logits_BN)
        return cross_entropy(logits_BN, self.labels(index, y_B)[0], self.args.label_smoothing)

    def head(self, index: int) -> nn.Module:
        """The heads of block ``index`` for the method's own loss, or the classifier for the last."""
        return self.backbone.classifier if index == self.last else self.heads[block_name(index)]

    def block_heads(self, index: int) -> list[nn.Module]:
        """The heads trained with block ``index``."""
        name = block_name(index)
        own = [self.head(index)] if self.is_supervised(index) else []
        return own + [task.heads[name] for task in self.tasks.values() if name in task.heads]

    def run_block(self, index: int, x_BCHW: Tensor) -> Hidden:
        """Forward block ``index`` on an input without a graph."""
        block = self.backbone.block(index)
        features_BCHW = block.features(x_BCHW)
        return Hidden(features_BCHW, block.pool(block.dropout(features_BCHW)))

    def prepare(self, batch: Batch) -> Batch:
        """The batch that the blocks see, the same for all; a self-supervised task may add images without labels."""
        for task in self.tasks.values():
            batch = task.prepare(batch)
        return batch

    def fill_block_grads(
        self, index: int, x_BCHW: Tensor, batch: Batch, below: Overlap | None = None
    ) -> tuple[Tensor, BlockResult]:
        """Train one block on its detached input and a prepared batch, and return its output from before the update.

        With an overlap the loss also trains what ``below`` holds, and the block's own graph is added to it.
        """
        if below is not None:
            x_BCHW = below.enter(x_BCHW)
        hidden = self.run_block(index, x_BCHW)
        loss, logits_BN, parts = self._losses(index, hidden, batch)
        out_BCHW = hidden.out_BCHW.detach()
        if below is None:
            del hidden  # autograd frees what it has used as it goes down; nobody else may hold on to the largest map
            loss.backward()
        else:
            below.backward(loss, x_BCHW, hidden.out_BCHW)
        return out_BCHW, BlockResult(loss.detach(), None if logits_BN is None else logits_BN.detach(), parts)

    def _losses(self, index: int, hidden: Hidden, batch: Batch) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """The weighted sum of a block's losses, its logits, and the losses by name where there are several kinds."""
        if index == self.last:
            return *self.block_loss(index, labelled(hidden, batch), batch), {}
        logits_BN, terms, parts = None, [], {}
        if self.is_supervised(index):
            loss, logits_BN = self.block_loss(index, labelled(hidden, batch), batch)
            terms.append(self.weight(PRED_LOSS, index) * loss)
            parts[PRED_LOSS] = loss.detach()
        for name, task in self.tasks.items():
            if block_name(index) in task.heads:
                loss = task.loss(index, hidden.features_BCHW, batch)
                terms.append(self.weight(name, index) * loss)
                parts[name] = loss.detach()
        # The settings refuse a block without any term.
        return sum(terms[1:], terms[0]), logits_BN, parts if self.args.ssl or self.tasks else {}

    def run_frozen(self, x_BCHW: Tensor) -> Tensor:
        """The input of the first block that learns."""
        with torch.no_grad():
            for block in self.backbone.blocks[: self.phases.learning.start]:
                x_BCHW = block(x_BCHW)
        return x_BCHW

    def fill_grads(self, batch: Batch) -> StepOutput:
        """Train every block that learns on one batch, each graph freed before the next is built."""
        batch = self.prepare(batch)
        h_BCHW = self.run_frozen(batch.x_BCHW)
        below = Overlap(self.args.overlap) if self.args.overlap else None
        done: dict[int, BlockResult] = {}
        for index in self.phases.learning:
            h_BCHW, done[index] = self.fill_block_grads(index, h_BCHW, batch, below)
        return step_output(self.backbone.num_blocks, done)

    def exit_logits(self, index: int, hidden: Hidden) -> Tensor | None:
        """Logits of the supervised block ``index``; a method whose heads do not all classify overrides it."""
        return self.head(index)(hidden.out_BCHW)

    def block_logits(self, x_BCHW: Tensor) -> list[Tensor | None]:
        """Inference at every exit; none above the blocks that learn, which nobody has trained."""
        logits: list[Tensor | None] = [None] * self.backbone.num_blocks
        for index, hidden in self._run(x_BCHW):
            if index in self.phases.blocks and self.is_supervised(index):
                logits[index] = self.exit_logits(index, hidden)
        return logits

    def _run(self, h_BCHW: Tensor) -> Iterator[tuple[int, Hidden]]:
        """The output of every block up to those that learn."""
        for index in range(self.phases.learning.stop):
            hidden = self.run_block(index, h_BCHW)
            yield index, hidden
            h_BCHW = hidden.out_BCHW

    def reconstructions(self, batch: Batch) -> dict[int, tuple[Tensor, Tensor]]:
        """By block, what its decoder was to draw and what it drew, (B, C, H, W) each, normalised."""
        drawn: dict[int, tuple[Tensor, Tensor]] = {}
        batch = self.prepare(batch)
        for index, hidden in self._run(batch.x_BCHW) if self.tasks else ():
            for task in self.tasks.values():
                known = block_name(index) in task.heads
                if known and (pictures := task.pictures(index, hidden.features_BCHW, batch)) is not None:
                    drawn[index] = pictures
        return drawn
