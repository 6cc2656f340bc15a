"""Local methods: every block learns from a loss of its own, and no gradient crosses a block's border."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

import tasks
from consts import PRED_LOSS, block_name, loss_name
from datamodules.base import LABELLED, SECOND_VIEW, Batch, DataSpec
from datamodules.super_classes import CoarseLabels
from heads.momentum import MomentumHead
from methods._base import BlockResult, Method, Phases, StepOutput, Traits, step_output
from model import Backbone, block_costs, cut, join, sum_of_squares
from objectives.classification import cross_entropy, merged_logits
from sections import phases
from sections.labels import SuperClasses
from sections.modules import Modules, Overlap
from sections.rule import MethodArgs
from tasks._base import Task
from utils import UsageError


class Hidden(NamedTuple):
    """A block's output with its graph, before its dropout and pool and behind them."""

    features_BCHW: Tensor
    out_BCHW: Tensor


class LocalMethod(Method):
    """Forward on the detached input, loss, backward at once, hand the detached output on.

    The graph of a block is freed before the next block runs, so memory is that of the largest block. The output
    handed on was computed *before* the block's update; that makes any schedule of the blocks, pipelines included,
    give the same bits.

    Attributes:
        SEES: the names of the images in a batch that the method's own loss looks at, in the order in which it gets
            their maps.
    """

    SEES: ClassVar[tuple[str, ...]] = (LABELLED,)

    def __init__(self, args: MethodArgs, backbone: Backbone, spec: DataSpec) -> None:
        super().__init__(args, backbone, spec)
        backbone = self.backbone  # its blocks may be modules now
        inner = range(self.first_trainable, self.last)
        self.phases = Phases(self.phases.blocks, args.group(phases.Phases).sequential)
        self.overlap = args.group(Overlap).overlap
        self.num_classes = spec.num_classes
        active = args.tasks.active
        self.weights = {PRED_LOSS: args.tasks.own_weight} | {name: weight for name, (_, weight) in active.items()}
        self._two_views = any(section.TWO_VIEWS for section, _ in active.values())
        coarse = args.group(SuperClasses).coarse_labels_first
        self.coarse = CoarseLabels(spec, backbone.num_blocks) if coarse else None
        self.heads = nn.ModuleDict({block_name(i): self.build_heads(i, spec) for i in inner if self.is_supervised(i)})
        # After the heads, so that these draw the same weights with and without the tasks.
        self.build_tasks(spec, inner)
        compare = {name for name, (section, _) in active.items() if section.TWO_VIEWS}
        found = [name for name, child in self.named_children() if isinstance(child, Task)]
        self._task_names = sorted(found, key=lambda name: name not in compare)
        self._check_that_all_learn(inner)

    def build_tasks(self, spec: DataSpec, inner: range) -> None:
        """Make the tasks of the blocks ``inner``, each a child of the method under the name of its loss."""
        for name, (section, _) in self.args.tasks.active.items():
            self.add_module(name, tasks.load(section.task())(self.args, self.backbone, spec, inner))

    def _check_that_all_learn(self, inner: range) -> None:
        for index in inner:
            if not self.is_supervised(index) and not any(
                block_name(index) in task.heads for task in self.tasks.values()
            ):
                shape = self.backbone.block(index).features_shape
                flags = ", ".join(f"--{section.weight_name()}" for section, _ in self.args.tasks.active.values())
                raise UsageError(
                    f"{block_name(index)} would learn nothing: its map of {shape.height}x{shape.width} is too small "
                    f"for {flags} alone; give the blocks another loss beside it, as a --pred_loss_weight above 0"
                )

    def arrange(self, backbone: Backbone, spec: DataSpec) -> Backbone:
        """Blocks joined to modules (``--num_modules``, ``--module_ends``); all that follows calls these blocks."""
        modules, first = self.args.group(Modules), self.first_trainable
        ends = [*modules.module_ends]
        if modules.num_modules is not None:
            costs = block_costs(backbone, spec, modules.split)[first:]
            ends = [first + end for end in cut(costs, modules.num_modules, sum_of_squares)]
        return join(backbone, ends, first) if ends else backbone

    @property
    def traits(self) -> Traits:
        """With ``--overlap`` a block also learns from the losses above it; with ``--man`` it reads the next block."""
        reads_next = any(isinstance(part, MomentumHead) for part in self.heads.modules())
        reach = max(self.overlap, int(reads_next))
        return replace(self.TRAITS, isolation="neighbour" if reach == 1 else "none") if reach else self.TRAITS

    @property
    def two_views(self) -> bool:
        """A task compares them."""
        return self._two_views

    @abstractmethod
    def build_heads(self, index: int, spec: DataSpec) -> nn.Module:
        """The heads of block ``index``; not asked for the last, whose head is the classifier."""

    @abstractmethod
    def block_loss(self, index: int, hidden: Hidden, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The loss of block ``index``, with its graph, and the logits of its classification head where it has one."""

    @property
    def tasks(self) -> dict[str, Task]:
        """What blocks learn beside the method's own loss, by name; tasks that compare two views first."""
        return {name: task for name in self._task_names if isinstance(task := self.get_submodule(name), Task)}

    def weight(self, name: str, index: int) -> float:
        """The weight in what block ``index`` learns: of a task's loss, or of the method's own (`PRED_LOSS`)."""
        return self.weights[name]

    def is_supervised(self, index: int) -> bool:
        """Whether block ``index`` learns from the method's own loss; the last always does, and from nothing else."""
        return index == self.last or self.weight(PRED_LOSS, index) > 0

    def labels(self, index: int, y_B: Tensor) -> tuple[Tensor, int]:
        """The labels that block ``index`` learns, and how many there are (``--coarse_labels_first``)."""
        return (y_B, self.num_classes) if self.coarse is None else self.coarse.labels(index, y_B)

    def classification_loss(self, index: int, logits_BN: Tensor, y_B: Tensor) -> Tensor:
        """Cross-entropy of block ``index`` against `labels`."""
        if self.coarse is not None and (member_GN := self.coarse.member_GN(index)) is not None:
            logits_BN = merged_logits(logits_BN, member_GN)
        return cross_entropy(logits_BN, self.labels(index, y_B)[0], self.label_smoothing)

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
        """The batch that the blocks see, the same for all; a task may add images without labels."""
        if self.two_views and batch.second_BCHW is not None:  # images that are looked at have none
            batch = batch.with_images(SECOND_VIEW, batch.second_BCHW)
        for task in self.tasks.values():
            batch = task.prepare(batch)
        return batch

    def fill_block_grads(
        self, index: int, x_BCHW: Tensor, batch: Batch, below: Overlapping | None = None
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
            del hidden  # autograd frees maps during the backward pass, unless another reference keeps them
            loss.backward()
        else:
            below.backward(loss, x_BCHW, hidden.out_BCHW)
        return out_BCHW, BlockResult(loss.detach(), None if logits_BN is None else logits_BN.detach(), parts)

    def _losses(self, index: int, hidden: Hidden, batch: Batch) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """The weighted sum of a block's losses, its logits, and the losses by name where there are several kinds."""
        seen = Hidden(*(batch.part(part, *self.SEES) for part in hidden))
        if index == self.last:
            return *self.block_loss(index, seen, batch), {}
        logits_BN, terms, parts = None, [], {}
        if self.is_supervised(index):
            loss, logits_BN = self.block_loss(index, seen, batch)
            terms.append(self.weight(PRED_LOSS, index) * loss)
            parts[PRED_LOSS] = loss.detach()
        for name, task in self.tasks.items():
            if block_name(index) in task.heads:
                loss = task.loss(index, hidden.features_BCHW, batch)
                terms.append(self.weight(name, index) * loss)
                parts[loss_name(name)] = loss.detach()
        return sum(terms[1:], terms[0]), logits_BN, parts if self.args.tasks.ssl or self.tasks else {}

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
        below = Overlapping(self.overlap) if self.overlap else None
        done: dict[int, BlockResult] = {}
        for index in self.phases.learning:
            h_BCHW, done[index] = self.fill_block_grads(index, h_BCHW, batch, below)
        return step_output(self.backbone.num_blocks, done)

    def exit_logits(self, index: int, hidden: Hidden) -> Tensor | None:
        """Logits of the supervised block ``index``; a method whose heads do not all classify overrides it."""
        return self.head(index)(hidden.out_BCHW)

    def block_logits(self, x_BCHW: Tensor) -> list[Tensor | None]:
        """Inference at every exit; None above the blocks that learn, which are not trained yet."""
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


class Overlapping:
    """The graphs of the last ``depth`` modules, through which the next module's loss is back-propagated."""

    def __init__(self, depth: int) -> None:
        self.graphs: deque[tuple[Tensor, Tensor]] = deque(maxlen=depth)  # input and output of each

    def enter(self, x_BCHW: Tensor) -> Tensor:
        """The input of the next module, as a leaf that takes a gradient where a module lies below."""
        return x_BCHW.detach().requires_grad_(bool(self.graphs))

    def backward(self, loss: Tensor, x_BCHW: Tensor, out_BCHW: Tensor) -> None:
        """Send the gradient of ``loss`` through the module from ``x_BCHW`` to ``out_BCHW`` and those below it."""
        loss.backward(retain_graph=True)
        grad: Any = x_BCHW.grad
        for leaf_BCHW, above_BCHW in reversed(self.graphs):
            leaf_BCHW.grad = None  # what an earlier loss left there
            above_BCHW.backward(grad, retain_graph=True)
            grad = leaf_BCHW.grad
        self.graphs.append((x_BCHW, out_BCHW))
