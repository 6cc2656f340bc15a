"""Rules whose layers may send the error down through separate feedback weights (``--feedback``)."""

from __future__ import annotations

from torch import Tensor, nn

from consts import block_name
from datamodules.base import DataSpec
from methods._base import Method
from methods._feedback import (
    Feedback,
    FeedbackLayer,
    FewBits,
    FixedMagnitudes,
    RedrawnMagnitudes,
    Sparse,
    UniformSigns,
)
from methods._feedback_learned import KolenPollack, WeightMirror
from methods._transport import add_feedback
from model import Backbone
from sections.rules.dualprop import DualpropArgs
from sections.rules.fa import FaArgs

FEEDBACK: dict[str, type[Feedback]] = {
    "random": Feedback, "usf": UniformSigns, "brsf": RedrawnMagnitudes, "frsf": FixedMagnitudes,
    "kolen_pollack": KolenPollack, "weight_mirror": WeightMirror, "sparse": Sparse, "few_bits": FewBits,
}  # fmt: skip


class Transported(Method):
    """A mixin for rules whose layers may send the error down through separate feedback weights.

    ``--feedback`` says which; with a word that `FEEDBACK` lacks the error goes down through the forward weights.

    Attributes:
        learned: feedback weights that the optimiser trains, by block.
    """

    args: FaArgs | DualpropArgs

    def __init__(self, args: FaArgs | DualpropArgs, backbone: Backbone, spec: DataSpec) -> None:
        super().__init__(args, backbone, spec)
        self.learned = nn.ModuleDict()
        if args.feedback not in FEEDBACK:
            return
        kind = FEEDBACK[args.feedback](args if isinstance(args, FaArgs) else None)
        for index in range(self.first_trainable, backbone.num_blocks):
            learned = nn.ParameterList()
            for layer in [layer for part in self.parts(index) for layer in add_feedback(part, kind)]:
                kind.collect(layer, learned)
            if len(learned):
                self.learned[block_name(index)] = learned

    def parts(self, index: int) -> list[nn.Module]:
        """What of the network learns with block ``index``; the classifier counts as the last block's."""
        return [self.backbone.block(index), *super().block_heads(index)]

    def block_heads(self, index: int) -> list[nn.Module]:
        """Further, the feedback weights that are learned with it."""
        name = block_name(index)
        return [*super().block_heads(index), *([self.learned[name]] if name in self.learned else [])]

    def layers_with_feedback(self) -> list[FeedbackLayer]:
        """From the bottom up."""
        return [layer for layer in self.backbone.modules() if isinstance(layer, FeedbackLayer)]

    def learn_feedback(self) -> None:
        """Give the feedback weights that are learned their gradients, once the forward weights have theirs."""
        for layer in self.layers_with_feedback():
            layer.feedback.after(layer)

    def feedback_pairs(self, index: int) -> list[tuple[Tensor, Tensor]]:
        """Those of the layers; none in the lowest block, below which nothing is sent."""
        parts = self.parts(index) if index > self.first_trainable else []
        layers = [layer for part in parts for layer in part.modules() if isinstance(layer, FeedbackLayer)]
        return [(layer.feedback.weights(layer), layer.weight) for layer in layers]
