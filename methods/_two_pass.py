"""Two-pass methods: the image is shown again, changed by the error; what the change does to a block is its signal."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from datamodules.base import Batch
from layers.normalisation import untracked
from methods._base import Method, StepOutput, wide
from objectives.classification import cross_entropy


class TwoPass(Method):
    """The family of rules with a second pass forward in place of one backward.

    Block i receives ``(h_i - h'_i) / B`` at its output, h' being the output in the second pass, and goes backward by
    itself. The classifier receives the error of the first pass on what it sees in the pass that teaches.

    Attributes:
        LEARNS_FROM: the pass, 0 or 1, from whose inputs weights get their gradients.
    """

    LEARNS_FROM: ClassVar[int]

    @abstractmethod
    def change(self, error_BN: Tensor) -> Tensor:
        """The change of the images, (B, ...) in their order; ``error`` is every image's own, softmax - onehot."""

    def constraint(self, part: nn.Module) -> Tensor | None:
        """A loss of the weights of a block or the classifier, if the rule has one; it is added to what they learn."""
        return None

    def run(self, x_BCHW: Tensor, with_graph: bool) -> list[Tensor]:
        """The outputs of all parts, the logits last; each with the part's own graph from the first that learns on."""
        outputs = []
        for index, part in enumerate(self.backbone.parts):
            with torch.set_grad_enabled(with_graph and index >= self.first_trainable):
                outputs.append(part(x_BCHW))
            x_BCHW = outputs[-1].detach()
        return outputs

    def fill_grads(self, batch: Batch) -> StepOutput:
        """Both passes, in float32 or wider since their difference counts, then every block by itself."""
        with torch.autocast(batch.x_BCHW.device.type, enabled=False):
            x_BCHW = wide(batch.x_BCHW)
            first = self.run(x_BCHW, self.LEARNS_FROM == 0)
            logits_BN = first[-1].detach().requires_grad_()
            loss = cross_entropy(logits_BN, batch.y_B, self.label_smoothing)
            (error_BN,) = torch.autograd.grad(loss, logits_BN)
            change_BCHW = self.change(error_BN * len(error_BN)).view_as(x_BCHW)
            with untracked(self.backbone):
                second = self.run(x_BCHW + change_BCHW, self.LEARNS_FROM == 1)
            learning = (first, second)[self.LEARNS_FROM]
            for index in range(self.first_trainable, self.backbone.num_blocks):
                signal_BCHW = (first[index].detach() - second[index].detach()) / len(x_BCHW)
                self.teach(self.backbone.block(index), learning[index], signal_BCHW)
            self.teach(self.backbone.classifier, learning[-1], error_BN)
        absent: list[Tensor | None] = [None] * self.last
        return StepOutput([*absent, first[-1].detach()], [*absent, loss.detach()])

    def teach(self, part: nn.Module, out: Tensor, signal: Tensor) -> None:
        """Add the gradients of a part, where it receives ``signal`` at its output."""
        constraint = self.constraint(part)
        if constraint is None:
            out.backward(signal)
        else:
            torch.autograd.backward([out, constraint], [signal, torch.ones_like(constraint)])
