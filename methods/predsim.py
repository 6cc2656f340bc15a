"""Prediction and similarity matching: every block learns from a classifier and from the similarity of images.

Paper:
    Nokland, Eidnes 2019, "Training Neural Networks with Local Error Signals", arXiv 1901.06656; code
    anokland/local-loss.

Signal:
    With h_i the output of block i before dropout and pool, block i minimises
    ``(1 - b) CE(head_i(h_i), y) + b mean((S(g_i(h_i)) - S(onehot(y)))^2)``, where S is the similarity of every two
    images of the batch (`objectives.similarity`), g_i a trained 3x3 convolution, and b ``--sim_loss_weight``.
    b = 0 is prediction alone (the paper's "pred"), b = 1 similarity alone ("sim"): no heads but the
    classifier, which then learns on the last block's detached output. Reported losses are ``CE + b mean(...)``, with
    deviation 1; for b = 1 those of blocks without a classifier are the similarity loss alone.
    ``--bio`` spares inner blocks their head's weights on the way down and the labels themselves: with P a fixed random
    map of the classes to 128 numbers, another in every block, they minimise
    ``(1 - b) BCE(W pool(h_i), P onehot(y) > 0) + b mean((S(pool(h_i)) - S(P onehot(y)))^2)``. The gradient of W is the
    ordinary one, that of h_i goes through a fixed random matrix in place of W. There is no g, b is 0.01 by default, and
    inner blocks have no exit. The last block and the classifier keep cross-entropy.

Cost:
    One block's graph at a time. g_i has as many weights as a convolution from C to C channels, 8.4 M for VGG8b, whose
    own convolutions have 6.8 M. S needs batch x batch numbers, which is little. Small batches with many classes have
    few pairs of one class to match.

Deviations:
    1. The factor 1 - b is on the gradient that the block receives from its head, not on what the head (or the
       classifier) itself receives. With the paper's Adam the step of a head does not depend on the scale of its
       gradient, so this is the same rule; with SGD the paper's loss would train the heads 100 times more slowly.
    2. By default the last block has no head of its own: its cross-entropy goes through the network's classifier, and so
       through dropout and max-pool, and the classifier's hidden layer learns by back-propagation from the output layer.
       ``--local_classifier`` is their form: the last block has a head as every block, each hidden layer (FC 1024 in
       VGG8b and VGG11b) is an isolated block with a linear head and a linear g, and the output layer learns on
       detached input. Their layer has a BatchNorm and dropout besides. The loss reported for the last block is then
       the sum of these.
    3. ReLU for every b; theirs is LeakyReLU 0.01 for sim and predsim, ReLU for pred.
    4. Dropout drops single values; theirs drops whole channels.
    5. All blocks step after the last one, theirs within the forward pass. The gradients are the same, because the
       output handed on is the one from before the update.
    6. The heads' bias starts at zero like their weights, so the first loss is exactly ln N. Where a pooling kernel does
       not divide the map, its last window averages what is left; theirs pads.
    7. Their CIFAR-100 batches hold about 20 classes in the first half of training; here batches are random.
    8. Inner blocks report no accuracy with ``--bio``; theirs compares the largest of 128 bits with the label.

Reference numbers:
    anokland/local-loss, CIFAR-10 test error, Adam 5e-4 (x 0.25 at epochs 200, 300, 350, 375 of 400), batch 128, dropout
    0.2, crop and flip, no weight decay, b = 0.99, heads of at most 2048 features: VGG8b back-propagation 5.99 %, pred
    8.40 %, sim 7.16 %, predsim 5.58 %; VGG11b 5.56 %, 8.39 %, 6.70 % and 5.30 %. Their README has none for ``--bio``.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from consts import block_name
from datamodules.base import Batch, DataSpec
from heads.build import build_classifier
from heads.classifiers import CLASSIFIERS, linear, pool_to_at_most
from heads.similarity import similarity_convolution, similarity_linear
from methods._base import Traits
from methods._local import Hidden, LocalMethod
from methods._transport import add_feedback
from model import Backbone, Shape
from objectives.classification import binary_cross_entropy
from objectives.similarity import similarity_loss, similarity_matching
from sections.rules.predsim import PredsimArgs

NUM_TARGETS = 128  # bits that stand for a class (anokland/local-loss, ``--target-proj-size``)


def with_gradient_times(x: Tensor, factor: float) -> Tensor:
    """The values of ``x``; only ``factor`` times the gradient passes through."""
    if factor in (0, 1):
        return x if factor else x.detach()
    x = x.view_as(x)
    x.register_hook(lambda gradient: factor * gradient)
    return x


class BioHead(nn.Module):
    """The head of ``--bio``: its targets are random bits, its error is back-propagated through fixed random weights.

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


class PredSim(LocalMethod):
    """Cross-entropy on every block's own head, and similarity matching behind its own convolution."""

    TRAITS = Traits(isolation="block")
    args: PredsimArgs

    def __init__(self, args: PredsimArgs, backbone: Backbone, spec: DataSpec) -> None:
        super().__init__(args, backbone, spec)  # its heads draw their weights first, so they start as those of dgl
        matches = args.sim_loss_weight > 0 or args.bio
        trained = range(self.first_trainable, self.backbone.num_blocks) if matches else ()
        # With --bio they predict as well, where no classifier does.
        self.similarity_heads = nn.ModuleDict(
            {block_name(i): self._build_similarity_head(i) for i in trained if self.is_supervised(i)}
        )
        # With a local classifier, what the last block and then each hidden layer learn through; else empty.
        self.top_heads, self.top_similarity_heads = nn.ModuleList(), nn.ModuleList()
        widths = [layer_width(layer) for layer in self.hidden_layers()] if args.local_classifier else []
        if args.local_classifier and args.sim_loss_weight < 1 and not args.bio:
            heads = [linear(Shape(width, 1, 1), spec.num_classes) for width in widths]
            self.top_heads.extend([self.build_heads(self.last, spec), *heads])
        if matches:
            top = (
                self._bio_head(Shape(width, 1, 1), True) if args.bio else similarity_linear(width) for width in widths
            )
            self.top_similarity_heads.extend(top)

    def hidden_layers(self) -> list[nn.Sequential]:
        """The hidden layers of the classifier, each with its ReLU; the first one flattens."""
        layers = [*self.backbone.classifier.children()]
        starts = [index for index, layer in enumerate(layers) if isinstance(layer, nn.Linear)]
        return [nn.Sequential(*layers[begin:end]) for begin, end in pairwise([0, *starts[1:]])]

    def build_heads(self, index: int, spec: DataSpec) -> nn.Module:
        """One classifier of the kind that ``--pred_aux_type`` names; nothing where there is no logit of a class."""
        args, shape = self.args, self.backbone.block(index).features_shape
        if args.sim_loss_weight == 1 or args.bio:
            return nn.Identity()
        builders = CLASSIFIERS | {"linear": partial(linear, num_features=args.dim_in_decoder)}
        return build_classifier(args, self.backbone, index, shape, spec.num_classes, builders)

    def _build_similarity_head(self, index: int) -> nn.Module:
        shape, is_inner = self.backbone.block(index).features_shape, index < self.last or self.args.local_classifier
        return self._bio_head(shape, is_inner) if self.args.bio else similarity_convolution(shape)

    def _bio_head(self, shape: Shape, is_inner: bool) -> BioHead:
        args = self.args
        return BioHead(shape, self.num_classes, args.dim_in_decoder, predicts=is_inner and args.sim_loss_weight < 1)

    def block_heads(self, index: int) -> list[nn.Module]:
        """The heads of the family, and the similarity head of block ``index``."""
        name = block_name(index)
        own = [self.similarity_heads[name]] if name in self.similarity_heads else []
        top = [self.top_heads, self.top_similarity_heads] if index == self.last else []
        return super().block_heads(index) + own + top

    def exit_logits(self, index: int, hidden: Hidden) -> Tensor | None:
        """Logits of block ``index``; None where similarity counts alone and with ``--bio``, but for the last."""
        if index == self.last:
            return self.head(index)(hidden.out_BCHW)
        classifies = self.args.sim_loss_weight < 1 and not self.args.bio
        return self.head(index)(hidden.features_BCHW) if classifies else None

    def block_loss(self, index: int, hidden: Hidden, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The sum of both losses; the gradient from the head reaches the block as ``1 - sim_loss_weight`` of it."""
        if index == self.last and self.args.local_classifier:
            return self._top_loss(hidden, batch)
        logits_BN = self.exit_logits(index, Hidden(*map(self._dimmed, hidden)))
        return self._both(index, logits_BN, hidden.features_BCHW, self._similarity_head(index), batch), logits_BN

    def _top_loss(self, hidden: Hidden, batch: Batch) -> tuple[Tensor, Tensor]:
        """The last block, every hidden layer and the output layer, each with a loss of its own on detached input."""
        layers = self.hidden_layers()
        similarity_heads = [self._similarity_head(self.last), *(self.top_similarity_heads or [None] * len(layers))]
        features, h_BD, losses = hidden.features_BCHW, hidden.out_BCHW.detach().flatten(1), []
        for number, similarity_head in enumerate(similarity_heads):
            if number > 0:
                features = layers[number - 1](h_BD)
                h_BD = features.detach()
            logits_BN = self.top_heads[number](self._dimmed(features)) if self.top_heads else None
            losses.append(self._both(self.last, logits_BN, features, similarity_head, batch))
        *_, output = self.backbone.classifier.children()
        logits_BN = output(h_BD)
        losses.append(self.classification_loss(self.last, logits_BN, batch.y_B))
        return torch.stack(losses).sum(), logits_BN

    def _similarity_head(self, index: int) -> nn.Module | None:
        return self.similarity_heads[block_name(index)] if self.similarity_heads else None

    def _dimmed(self, x: Tensor) -> Tensor:
        return with_gradient_times(x, 1 - self.args.sim_loss_weight)

    def _both(
        self, index: int, logits_BN: Tensor | None, features: Tensor, similarity_head: nn.Module | None, batch: Batch
    ) -> Tensor:
        weight, (labels_B, num_labels) = self.args.sim_loss_weight, self.labels(index, batch.y_B)
        losses = [] if logits_BN is None else [self.classification_loss(index, logits_BN, batch.y_B)]
        if isinstance(similarity_head, BioHead):
            if similarity_head.decoder is not None:
                losses.append(similarity_head.prediction_loss(self._dimmed(features), labels_B))
            if weight > 0:
                losses.append(weight * similarity_head.similarity_loss(features, labels_B))
        elif similarity_head is not None:
            losses.append(weight * similarity_matching(similarity_head(features), labels_B, num_labels))
        return sum(losses[1:], losses[0])


def layer_width(layer: nn.Sequential) -> int:
    """Outputs of a hidden layer of the classifier."""
    return next(part.out_features for part in layer if isinstance(part, nn.Linear))
