"""Decoupled greedy learning: every block learns from a classifier of its own.

Paper:
    Belilovsky, Eickenberg, Oyallon 2020, "Decoupled Greedy Learning of CNNs", arXiv 1901.08164.

Signal:
    Block i minimises ``l_i = CE(head_i(f_i(sg(h_{i-1}))), y)`` together with head i; the last head is the network's
    classifier. With ``--is_direct_global`` the gradient at the logits of every head but the last becomes
    ``(1 - w) g_i + w g_L``, where ``g_i = dl_i/dz_i`` and w is ``--last_gradient_weight`` (AlonNT/Thesis, commit
    79c1678).

Cost:
    One block's graph at a time; the heads' parameters on top of the network's. The direct global form must know g_L
    before any backward pass begins, so it keeps every block's graph, like back-prop.

Deviations:
    1. The paper steps a block's optimiser before the next block runs; here all blocks step after the last one. The
       gradients are the same, because the output handed on is the one from before the update.
    2. Heads read the block's output behind its pool. In the authors' code (eugenium/DGL) a pool is the first layer of
       the next block, so that their heads read the map before it.
    3. Heads are linear by default (`--pred_aux_type`), which on held-out images were no worse than wider ones (study
       2026-11-27_trained); the thesis had an MLP on the full map, the paper MLP-SR.
    4. The paper's MLP-SR head has three hidden layers, which is ``--pred_aux_type mlp_sr --aux_mlp_n_hidden_layers 3``;
       our default is 1.
    5. Pools whose size does not divide the map's average other windows than theirs where the remainder is two or more
       (`heads.classifiers.average_pool`).

Reference numbers:
    AlonNT/Thesis, CIFAR-10 test accuracy, best of 1500 epochs: BasicCNN 77.6 % without and 86.5 % with augmentation,
    VGG16 89.5 %, VGG11c 91.2 %. eugenium/DGL: 85.05 % on a like BasicCNN.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datamodules.base import Batch, DataSpec
from heads.build import build_classifier
from methods._base import StepOutput, Traits
from methods._local import Hidden, LocalMethod
from sections.rules.dgl import DglArgs


class DecoupledGreedyLearning(LocalMethod):
    """Cross-entropy on every block's own head."""

    TRAITS = Traits(isolation="block")
    args: DglArgs

    @property
    def traits(self) -> Traits:
        """The direct global gradient is broadcast from the top."""
        return Traits(isolation="broadcast") if self.args.is_direct_global else super().traits

    def build_heads(self, index: int, spec: DataSpec) -> nn.Module:
        """One classifier of the kind that ``--pred_aux_type`` names."""
        return build_classifier(self.args, self.backbone, index, self.backbone.out_shapes[index], spec.num_classes)

    def block_loss(self, index: int, hidden: Hidden, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Cross-entropy of the head's logits."""
        logits_BN = self.head(index)(hidden.out_BCHW)
        return self.classification_loss(index, logits_BN, batch.y_B), logits_BN

    def fill_grads(self, batch: Batch) -> StepOutput:
        """One batch: local gradients, or their mixture with the last block's."""
        return self._fill_direct_global(batch) if self.args.is_direct_global else super().fill_grads(batch)

    def _fill_direct_global(self, batch: Batch) -> StepOutput:
        h_BCHW = self.run_frozen(batch.x_BCHW)
        absent: list[Tensor | None] = [None] * self.first_trainable
        all_logits, losses, grads = [], [], []
        for index in range(self.first_trainable, self.backbone.num_blocks):
            hidden = self.run_block(index, h_BCHW)
            loss, logits_BN = self.block_loss(index, hidden, batch)
            assert logits_BN is not None
            grads.append(torch.autograd.grad(loss, logits_BN)[0])
            all_logits.append(logits_BN)
            losses.append(loss.detach())
            h_BCHW = hidden.out_BCHW.detach()
        weight, last_BN = self.args.last_gradient_weight, grads[-1]
        all_logits[-1].backward(last_BN)
        for logits_BN, grad_BN in zip(all_logits[:-1], grads[:-1], strict=True):
            logits_BN.backward((1 - weight) * grad_BN + weight * last_BN)
        return StepOutput([*absent, *(logits.detach() for logits in all_logits)], [*absent, *losses])
