"""What ``--bio`` puts in place of a block's classifier and similarity convolution (`methods.predsim`)."""

from __future__ import annotations

from torch import Tensor, nn

from heads.classifiers import linear, pool_to_at_most
from methods._transport import add_feedback
from model import Shape
from objectives.classification import binary_cross_entropy
from objectives.similarity import similarity_loss

NUM_TARGETS = 128  # bits that stand for a class (anokland/local-loss, ``--target-proj-size``)


class BioHead(nn.Module):
    """A decoder that never sees the labels themselves, nor sends its own weights' transpose down.

    Every class has `NUM_TARGETS` fixed numbers, the columns of a random linear map P without bias. Weights of P and of
    the decoder's way down are uniform within 1 / sqrt(fan_in); both are buffers.

    Args:
        shape: of the block's output.
        num_classes: number of labels.
        num_features: to which the output is pooled at most, for both losses.
        predicts: whether there is a decoder; without one only `similarity_loss` can be asked for.

    Attributes:
        code_ND: P transposed, so that row y belongs to label y.
    """

    code_ND: Tensor

    def __init__(self, shape: Shape, num_classes: int, num_features: int, predicts: bool) -> None:
        super().__init__()
        self.pool, _ = pool_to_at_most(shape, num_features)
        self.decoder = linear(shape, NUM_TARGETS, num_features=num_features) if predicts else None
        if self.decoder is not None:
            add_feedback(self.decoder)
        code_DN = nn.Linear(num_classes, NUM_TARGETS, bias=False).weight.detach()
        self.register_buffer("code_ND", code_DN.t().contiguous())

    def prediction_loss(self, x: Tensor, y_B: Tensor) -> Tensor:
        """Mean binary cross-entropy of the decoder's outputs against ``P onehot(y) > 0``; ``ln 2`` at the start."""
        assert self.decoder is not None
        return binary_cross_entropy(self.decoder(x), self.code_ND[y_B] > 0)

    def similarity_loss(self, x: Tensor, y_B: Tensor) -> Tensor:
        """`similarity_loss` of the pooled output against ``P onehot(y)``."""
        return similarity_loss(self.pool(x), self.code_ND[y_B])
