"""Signal methods: a forward pass cut at every block, then a teaching signal injected at each cut, top down."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from datamodules.base import Batch, DataSpec
from layers.normalisation import untracked
from layers.replay import RandomState
from methods._base import Method, StepOutput
from model import Backbone
from objectives.classification import cross_entropy
from sections.checkpoints import Checkpoints
from sections.rule import MethodArgs


@dataclass
class Trace:
    """The cut graph of one batch.

    Attributes:
        batch: what was seen.
        inputs: per block its input as a leaf; one more for the classifier. None for frozen blocks, and for what has
            been used: `signal` for block i sees entries up to i + 1.
        outputs: per block its output, with the block's graph and no other. None likewise, and with
            ``--checkpoint_blocks`` until `SignalMethod.output` computes it again.
        logits_BN: the network's output, detached.
        error_BN: gradient of the mean loss at the logits, ``(softmax - onehot) / B``.
        loss: the network's loss, detached.
        random: what was about to be drawn before each block that will be computed again.
        kept: what `hand_over` and `signal` leave for `learn`: guesses with a graph of their own, and their targets.
        parts: scalars to be reported, by name.
    """

    batch: Batch
    inputs: list[Tensor | None]
    outputs: list[Tensor | None]
    logits_BN: Tensor
    error_BN: Tensor
    loss: Tensor
    kept: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    random: dict[int, RandomState] = field(default_factory=dict)
    parts: dict[str, Tensor] = field(default_factory=dict)


class SignalMethod(Method):
    """The family of rules that differ only in the signal a block receives at its output.

    The classifier always gets the gradient of the loss. Block i receives ``signal(i, trace, above)``, where ``above``
    is the cotangent that block i + 1 (or the classifier) sent down through its own backward pass.
    """

    def __init__(self, args: MethodArgs, backbone: Backbone, spec: DataSpec) -> None:
        super().__init__(args, backbone, spec)
        self.checkpoints = args.group(Checkpoints).checkpoint_blocks

    @abstractmethod
    def signal(self, index: int, trace: Trace, above_BCHW: Tensor) -> Tensor:
        """The cotangent to inject at the output of block ``index``, of that output's shape."""

    def hand_over(self, index: int, below_BCHW: Tensor, batch: Batch, kept: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The input of block ``index``, used without its graph: the output of the block below.

        A rule that takes another may leave a guess and its target in ``kept``, which becomes that of the trace.
        """
        return below_BCHW

    def learn(self, trace: Trace) -> Tensor | None:
        """The loss of the method's own parameters, if it has any; called when every signal is known."""
        return None

    def run(self, batch: Batch) -> tuple[Trace, Tensor]:
        """Forward through the cut graph; returns the trace and the logits with the classifier's graph."""
        inputs: list[Tensor | None] = []
        outputs: list[Tensor | None] = []
        kept: list[tuple[Tensor, Tensor]] = []
        random: dict[int, RandomState] = {}
        h_BCHW = batch.x_BCHW
        for index in range(self.backbone.num_blocks):
            block = self.backbone.block(index)
            if index < self.first_trainable:
                with torch.no_grad():
                    h_BCHW = block(h_BCHW)
                inputs.append(None)
                outputs.append(None)
                continue
            if index > self.first_trainable:
                h_BCHW = self.hand_over(index, h_BCHW, batch, kept)
            # Nothing below the first trainable block learns, so the gradient at its input is never formed.
            leaf_BCHW = h_BCHW.detach().requires_grad_(index > self.first_trainable)
            again = self.checkpoints and index < self.last  # the last block's gradient is the first to be due
            if again:
                random[index] = RandomState.now(h_BCHW.device)
            with torch.set_grad_enabled(not again):
                h_BCHW = block(leaf_BCHW)
            inputs.append(leaf_BCHW)
            outputs.append(None if again else h_BCHW)
        top_BCHW = h_BCHW.detach().requires_grad_()
        inputs.append(top_BCHW)
        logits_BN = self.backbone.classifier(top_BCHW)
        leaf_BN = logits_BN.detach().requires_grad_()
        loss = cross_entropy(leaf_BN, batch.y_B, self.label_smoothing)
        (error_BN,) = torch.autograd.grad(loss, leaf_BN)
        return Trace(batch, inputs, outputs, leaf_BN.detach(), error_BN, loss.detach(), kept, random), logits_BN

    def output(self, index: int, trace: Trace) -> Tensor:
        """The output of block ``index`` with its graph; computed again where only its input was kept.

        The second time gives the same bits: it draws what the first drew, and BatchNorm sees the same images. Its
        running statistics have moved already.
        """
        out_BCHW, leaf_BCHW, block = trace.outputs[index], trace.inputs[index], self.backbone.block(index)
        if out_BCHW is None:
            assert leaf_BCHW is not None
            with untracked(block), trace.random[index].again():
                out_BCHW = trace.outputs[index] = block(leaf_BCHW)
        return out_BCHW

    def fill_grads(self, batch: Batch) -> StepOutput:
        """Inject the error at the logits, then a signal at every block from the top down, then let `learn` learn."""
        trace, logits_BN = self.run(batch)
        logits_BN.backward(trace.error_BN)
        for index in reversed(range(self.first_trainable, self.backbone.num_blocks)):
            out_BCHW, upper_BCHW = self.output(index, trace), trace.inputs[index + 1]
            assert upper_BCHW is not None and upper_BCHW.grad is not None
            out_BCHW.backward(self.signal(index, trace, upper_BCHW.grad))
            # As in one plain backward pass, what lies above is not kept while the blocks below run.
            trace.outputs[index] = trace.inputs[index + 1] = None
            del out_BCHW, upper_BCHW
        loss = self.learn(trace)
        if loss is not None:
            loss.backward()
        absent: list[Tensor | None] = [None] * self.last
        return StepOutput([*absent, trace.logits_BN], [*absent, trace.loss], trace.parts)
