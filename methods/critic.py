"""Local critics: every block learns from a small network that approximates all blocks above it.

Paper:
    Lee, Choi, Lee, Lee 2018, "Local Critic Training of Deep Neural Networks", arXiv 1805.01128; IEEE TNNLS 33(9), 2022;
    code hjdw2/Local-critic-training.

Signal:
    With h_i the output of block i, c_i its critic and ``l_i = CE(c_i(h_i), y)`` the loss of every single image, block i
    receives ``d mean(l_i) / d h_i``, and nothing from above. The critic itself does not learn from the labels: it
    minimises ``w mean|l_i - sg(l_{i+1})|`` on ``sg(h_i)``, so that its losses become those of the next critic, for the
    last critic those of the network; w is ``--cascade_loss_weight``. A critic whose losses are too small is made to
    raise them. One look ahead is enough: block i and c_i depend on block i + 1 and c_{i+1} and on nothing further up.
    The paper's groups of layers are ``--num_modules`` or ``--module_ends``. With ``--ssl`` and ``--supcon_loss_weight``
    mean(l_i) is the method's own loss, and the critics learn as without.
    Blocks 0 to i with c_i are a network that can be used alone: ``evaluate RUN --prefixes``.

Cost:
    One block's graph at a time, and the graph of the critic below it. A critic goes forward once and backward twice.

Deviations:
    1. Critics have the blocks' kind of optimiser and course of the rate, with ``--critic_rate_scale`` as a factor; the
       paper has SGD for the blocks and Adam, 1e-4 throughout, for the critics.
    2. Weight decay belongs to the optimiser. The released code adds its term to h_i inside the product with the
       Jacobian, so that it is multiplied by the sum of ``d l_i / d h_i``: a slip, not copied.
    3. Blocks and critics step together, after the last block; all losses are from before the update.
    4. The paper also updates critics at every second to fifth step only; here at every step.
    5. Critics read a block's output behind its pool.

Reference numbers:
    From the paper, CIFAR-10 test accuracy, VGG-like network of 4 groups, 80,000 steps of 128 images, mean of 5:
    back-propagation 93.93 %, 1, 3, 5 critics 92.06, 92.39, 91.38 %; CIFAR-100 75.14 %, 73.61, 69.91, 63.53 %. CIFAR-10
    with 3 critics by prefix: 85.24, 90.53, 92.29 %, whole 92.39 % (the same networks trained by back-propagation 74.46,
    88.03, 92.05, 93.93 %); sum of the prefixes' outputs 92.68 %, with the whole network's 92.79 %.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from consts import CASCADE_LOSS
from datamodules.base import Batch, DataSpec
from heads.build import build_classifier
from methods._base import BlockResult, StepOutput, Traits, step_output
from methods._local import Hidden, LocalMethod
from objectives.classification import cross_entropy
from sections.rules.critic import CriticArgs


class _Judged(torch.autograd.Function):
    """A loss that is known together with its gradient at a block's output; backward returns that gradient."""

    @staticmethod
    def forward(ctx: Any, out_BCHW: Tensor, loss: Tensor, grad_BCHW: Tensor) -> Tensor:
        """Return the loss."""
        ctx.save_for_backward(grad_BCHW)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None, None]:
        """Scale the gradient by what the loss is weighted with."""
        (grad_BCHW,) = ctx.saved_tensors
        return above * grad_BCHW, None, None


class LocalCritic(LocalMethod):
    """Blocks learn from their critics, and each critic from the one above."""

    TRAITS = Traits(isolation="neighbour")
    args: CriticArgs

    def build_heads(self, index: int, spec: DataSpec) -> nn.Module:
        """The critic, a classifier of the kind that ``--pred_aux_type`` names."""
        return build_classifier(self.args, self.backbone, index, self.backbone.out_shapes[index], spec.num_classes)

    def scaled_heads(self, index: int) -> tuple[str, float, list[nn.Module]]:
        """The critic, with ``--critic_rate_scale``; the last block has the classifier."""
        critics = [self.head(index)] if index < self.last and self.is_supervised(index) else []
        return "critic", self.args.critic_rate_scale, critics

    def block_loss(self, index: int, hidden: Hidden, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Loss of the critic on the block's output; the logits keep the critic's graph, which ends at that output."""
        out_BCHW = hidden.out_BCHW
        leaf_BCHW = out_BCHW if index == self.last else out_BCHW.detach().requires_grad_()
        logits_BN = self.head(index)(leaf_BCHW)
        loss = self.classification_loss(index, logits_BN, batch.y_B)
        if index < self.last:
            (grad_BCHW,) = torch.autograd.grad(loss, leaf_BCHW, retain_graph=True)
            loss = _Judged.apply(out_BCHW, loss.detach(), grad_BCHW)
        return loss, logits_BN

    def fill_grads(self, batch: Batch) -> StepOutput:
        """Train every block on one batch, and each critic as soon as the next losses are known."""
        batch = self.prepare(batch)
        h_BCHW = self.run_frozen(batch.x_BCHW)
        done: dict[int, BlockResult] = {}
        below_BN: Tensor | None = None  # logits of the critic below, with its graph
        for index in range(self.first_trainable, self.backbone.num_blocks):
            hidden = self.run_block(index, h_BCHW)
            loss, logits_BN, parts = self._losses(index, hidden, batch)
            h_BCHW = hidden.out_BCHW.detach()
            del hidden  # so that backward frees the largest map, as in the family
            loss.backward()
            done[index] = BlockResult(loss.detach(), None if logits_BN is None else logits_BN.detach(), parts)
            if below_BN is not None and logits_BN is not None:
                cascade = self.fill_critic_grads(index - 1, below_BN, logits_BN.detach(), batch.y_B)
                parts_below = done[index - 1].parts
                done[index - 1] = done[index - 1]._replace(parts={**parts_below, CASCADE_LOSS: cascade})
            below_BN = logits_BN
        return step_output(self.backbone.num_blocks, done)

    def fill_critic_grads(self, index: int, logits_BN: Tensor, next_BN: Tensor, y_B: Tensor) -> Tensor:
        """Train the critic of block ``index`` on its logits' graph and the next logits, and return its loss."""
        cascade = F.l1_loss(self.image_losses(logits_BN, y_B), self.image_losses(next_BN, y_B))
        critic = [*self.head(index).parameters()]
        (self.args.cascade_loss_weight * cascade).backward(inputs=critic)  # and not down to the block's output
        return cascade.detach()

    def image_losses(self, logits_BN: Tensor, y_B: Tensor) -> Tensor:
        """Cross-entropy of every image, (B,)."""
        return cross_entropy(logits_BN, y_B, self.label_smoothing, reduction="none")
