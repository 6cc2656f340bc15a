"""Forward gradients: a direction times the derivative of the loss along it, found by forward-mode differentiation.

Paper:
    Baydin, Pearlmutter, Syme, Wood, Torr 2022, "Gradients without Backpropagation", arXiv 2202.08587 (``weight``);
    Ren, Kornblith, Liao, Hinton 2023, "Scaling Forward Gradient With Local Losses", arXiv 2210.03310 (``activity``);
    Fournier, Rivaud, Belilovsky, Eickenberg, Oyallon 2023, "Can Forward Gradient Match Backpropagation?", arXiv
    2306.06968 (``--guess local``).

Signal:
    With ``--perturb activity`` block i receives ``(dl_b/dh_i . u_b) u_b / B`` for every image b: u_b is a direction in
    the space of its output, l_b its loss, and the slope in brackets, one number for each image, comes from one pass
    forward through the blocks above. With ``--perturb weight`` the gradient of block i is ``(dl/dw_i . v) v``, where v
    is a direction in the space of its weights and l the mean loss. ``--guess`` says where directions come from:

    - ``random``: signs or normal numbers (``--tangent``). The mean over directions is the gradient. Its squared length
      is n times the gradient's for signs, n + 2 for normal numbers, with n the numbers in a direction. ``--directions``
      are averaged. Units whose output is 0, as behind ReLU, are not moved.
    - ``local``: g, the gradient of a loss at the block's own head, which learns as in dgl. Block i receives the
      projection ``(dl/dh_i . g) g / |g|^2``, of every image, or so with weights. A guess that is the gradient gives
      back-propagation. ``--diagnostics alignment`` has the cosine of every block's signal.

Cost:
    For every direction and block a pass through all that lies above it, each value with its derivative: quadratic in
    the number of blocks. ``weight`` needs no backward pass and keeps no activations; ``local`` needs one block's.
    ``activity`` keeps back-propagation's in this implementation, which also forms the gradients that it leaves unused.

Deviations:
    1. Baydin et al. differentiate along all weights at once. Here each block has a pass of its own, and so a slope of
       its own: the other blocks' directions are no noise in it.
    2. Ren et al. move units before their activation, and need no backward pass inside a block. Here its output is
       moved, and the block's own backward pass has the masks of ReLU and pool.
    3. BatchNorm makes the loss of an image depend on the others. The slope of an image counts what its own loss
       changes by when all images move, and not what it does to theirs: ``activity`` lacks that part of the gradient.
       ``weight`` has it.
    4. With ``activity`` the classifier is trained by its own gradient; with ``local`` the last block is too, because
       its head is the classifier.
    5. Ren et al. have networks of their own, with local losses for groups of channels and patches of the map.
    6. Slopes are computed in float32 or wider, whatever the precision of the run.

Reference numbers:
    Ren et al., CIFAR-10, their LocalMixer of 8 blocks, test error: 33.62 % back-propagation, 55.95 % ``weight``,
    59.72 % ``activity``, 30.68 % ``activity`` with local losses in place of the network's.
    Measured here with BasicCNN on digits, batches of 32, one seed, test accuracy of the last epoch: 93.6 % after 8
    epochs with the defaults; after 2 epochs with ``--guess local --learning_rate 0.02`` 96.1 %, and 97.5 % with
    ``--perturb weight`` besides. Random directions of weights need a far smaller rate: at 0.002 the loss is soon not
    finite.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from consts import block_name
from datamodules.base import Batch, DataSpec
from heads.build import build_classifier
from layers.forward import derivative, without_derivative
from methods._base import StepOutput, Traits, wide
from methods._perturb import DRAW, add, exactly, shares, shares_with
from methods._signal import SignalMethod, Trace
from model import Backbone, layers_of
from objectives.classification import cross_entropy
from sections.rules.fg import FgArgs
from utils import UsageError


class ForwardGradient(SignalMethod):
    """Directions, each times the slope of the loss along it."""

    TRAITS = Traits(isolation="none")
    args: FgArgs

    def __init__(self, args: FgArgs, backbone: Backbone, spec: DataSpec) -> None:
        super().__init__(args, backbone, spec)
        self._check_derivatives(spec)
        self.is_local, self.draw = args.guess == "local", DRAW[args.tangent]
        self.heads = nn.ModuleDict()
        for index in range(self.first_trainable, self.last) if self.is_local else ():
            head = build_classifier(args, backbone, index, backbone.out_shapes[index], spec.num_classes)
            self.heads[block_name(index)] = head

    def _check_derivatives(self, spec: DataSpec) -> None:
        images = torch.empty(2, spec.num_channels, spec.height, spec.width, device="meta")
        place = without_derivative([part.to("meta") for part in copy.deepcopy(self.backbone.parts)], images)
        if place is not None:
            name = "the classifier" if place > self.last else block_name(place)
            kinds = " - ".join(type(layer).__name__ for layer in layers_of(self.backbone.parts[place]))
            raise UsageError(
                f"--fg: {name} ({kinds}) has a layer without a forward derivative; write one made of torch's "
                "operations, or give its autograd.Function a jvp"
            )

    def block_heads(self, index: int) -> list[nn.Module]:
        """The head from which block ``index`` guesses; the last block's is the classifier."""
        name = block_name(index)
        return [self.heads[name]] if name in self.heads else super().block_heads(index)

    def fill_grads(self, batch: Batch) -> StepOutput:
        """Signals for the blocks, or gradients of their weights without any."""
        return super().fill_grads(batch) if self.args.perturb == "activity" else self.fill_weights(batch)

    def signal(self, index: int, trace: Trace, above_BCHW: Tensor) -> Tensor:
        """The estimated gradient at the output of block ``index``: directions times every image's slope along them."""
        out_BCHW, batch = trace.outputs[index], trace.batch
        assert out_BCHW is not None
        if self.is_local and index == self.last:
            return above_BCHW
        h_BCHW = wide(out_BCHW.detach())
        sum_BCHW = torch.zeros_like(h_BCHW)
        for along_BCHW, unit_B in self.directions(index, h_BCHW, batch):
            with exactly(self, batch):
                slope_B = derivative(lambda h_BCHW: shares(self, index + 1, h_BCHW, batch), [h_BCHW], [along_BCHW])
            sum_BCHW += along_BCHW * (slope_B / unit_B).view(-1, *[1] * (h_BCHW.dim() - 1))
        return torch.empty_like(above_BCHW).copy_(sum_BCHW)

    def directions(self, index: int, h_BCHW: Tensor, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
        """Directions of the output of block ``index``, and by what every image's slope is to be divided."""
        if self.is_local:
            leaf_BCHW = h_BCHW.detach().requires_grad_()
            self.head_loss(index, leaf_BCHW, batch)[0].backward()
            assert leaf_BCHW.grad is not None
            yield leaf_BCHW.grad, size(leaf_BCHW.grad.flatten(1).square().sum(1))
        else:
            for _ in range(self.args.directions):
                drawn_BCHW = batch.rows_of_step(lambda count: self.draw((count, *h_BCHW.shape[1:]), h_BCHW, batch))
                # What ReLU or dropout has set to 0 does not move, and takes no gradient either.
                yield drawn_BCHW * (h_BCHW != 0), h_BCHW.new_full((len(h_BCHW),), self.args.directions)

    def head_loss(self, index: int, h_BCHW: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of block ``index`` at its head, and the head's logits."""
        logits_BN = self.block_heads(index)[0](h_BCHW)
        return cross_entropy(logits_BN, batch.y_B, self.label_smoothing), logits_BN

    def fill_weights(self, batch: Batch) -> StepOutput:
        """Directions of the weights of every block, and of the classifier, each times the slope along it."""
        h_BCHW, loss, logits_BN = batch.x_BCHW, torch.empty(0), torch.empty(0)
        inputs: list[Tensor] = []
        guesses: list[Sequence[Tensor]] = []
        for index, block in enumerate(self.backbone.blocks):
            inputs.append(h_BCHW)
            guesses.append(())
            with torch.set_grad_enabled(self.is_local and index >= self.first_trainable):
                h_BCHW = block(h_BCHW)
                if torch.is_grad_enabled() or index == self.last:
                    loss, logits_BN = self.head_loss(index, h_BCHW, batch)
            if self.is_local and index >= self.first_trainable:
                own, others = [*block.parameters()], [*self.block_heads(index)[0].parameters()]
                grads = torch.autograd.grad(loss, [*own, *others], materialize_grads=True)
                guesses[index] = grads[: len(own)]
                add(others, grads[len(own) :])
            h_BCHW = h_BCHW.detach()
        for index in range(self.first_trainable, self.last + 1):
            self.fill_part(index, inputs[index], guesses[index], batch)
        if not self.is_local:
            self.fill_part(self.last + 1, h_BCHW, (), batch)
        absent: list[Tensor | None] = [None] * self.last
        return StepOutput([*absent, logits_BN.detach()], [*absent, loss.detach()])

    def fill_part(self, index: int, x_BCHW: Tensor, guess: Sequence[Tensor], batch: Batch) -> None:
        """Add the gradient of the weights of part ``index``, whose input is ``x``."""
        weights, x_BCHW = [*self.backbone.parts[index].parameters()], wide(x_BCHW)
        if self.is_local and index == self.last:
            add(weights, guess)
        elif weights:
            for along, unit in self.weight_directions(weights, guess, batch):
                with exactly(self, batch):
                    slope = derivative(lambda *w: shares_with(self, index, w, x_BCHW, batch), weights, along).sum()
                add(weights, [slope / unit * moved for moved in along])

    def weight_directions(
        self, weights: Sequence[Tensor], guess: Sequence[Tensor], batch: Batch
    ) -> Iterator[tuple[Sequence[Tensor], Tensor | int]]:
        """Directions of some weights, and by what the slope along each is to be divided."""
        if self.is_local:
            yield guess, size(torch.stack([moved.square().sum() for moved in guess]).sum())
        else:
            for _ in range(self.args.directions):
                yield [self.draw(weight.shape, weight, batch) for weight in weights], self.args.directions


def size(square: Tensor) -> Tensor:
    """A squared length, or the least number above 0: a guess of 0 stays one."""
    return square.clamp_min(torch.finfo(square.dtype).tiny)
