"""Modules: neighbouring blocks that one loss trains together, and losses that reach into the module below.

Paper:
    Laskin et al. 2020, "Parallel Training of Deep Networks with Local Updates", arXiv 2012.03837 (chunked and
    overlapping training); Xiong, Ren, Urtasun 2020, "LoCo: Local Contrastive Representation Learning", arXiv 2008.01342
    (neighbouring units share a stage).

Signal:
    ``--num_modules K`` joins the blocks to K modules. Inside a module gradients flow as in back-propagation; heads,
    losses and metrics are those of modules, which are counted from 0 and take the blocks' place. K = 1 is
    back-propagation, because the last module has no head but the classifier; without the flag every block is a module.
    Frozen blocks stay single, and the modules share the others. ``--split`` makes the parts as equal as neighbours
    can be (least sum of squares; of equally good ones the earlier modules are the smaller): by number of blocks, by
    operations of convolutions, or by the bytes that autograd keeps for the backward pass.
    ``--overlap W`` lets the loss of a module also train the W modules below it, with every gradient cut at the input of
    the lowest: module i learns from ``l_i + l_{i+1} + ... + l_{i+W}``. W = 1 with single blocks is Laskin's overlapping
    form, with stages LoCo's; W = K - 1 is back-propagation of the sum of all losses.

Cost:
    One module's graph at a time, W + 1 of them with an overlap, which also sends W + 1 gradients through every module:
    about W backward passes more.

Deviations:
    1. LoCo runs a shared stage once for each of its units; here it runs once, and its output serves both. The
       gradients are the same, and statistics of BatchNorm move once a step.
    2. Our modules are blocks with their pools, and the classifier belongs to the last; theirs may end anywhere.

Reference numbers:
    None that we could compare with: both papers report other data or other losses.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from datamodules.base import DataSpec
from model import Backbone, merged
from schemas import ModuleArgs


def join(args: ModuleArgs, backbone: Backbone, first: int, spec: DataSpec) -> Backbone:
    """The same network with the blocks from ``first`` on joined to modules; those before it stay as they are."""
    blocks = [backbone.block(index) for index in range(backbone.num_blocks)]
    ends = [*args.module_ends]
    if args.num_modules is not None:
        ends = [first + end for end in partition(costs(backbone, spec, args.split)[first:], args.num_modules)]
    if not ends:
        return backbone
    starts = [first, *(end + 1 for end in ends if end + 1 < len(blocks))]
    modules = [merged(blocks[start:after]) for start, after in zip(starts, [*starts[1:], len(blocks)], strict=True)]
    return Backbone([*blocks[:first], *modules], backbone.classifier)


def partition(costs: Sequence[int], num_parts: int) -> tuple[int, ...]:
    """The index of the last element of each of ``num_parts`` runs of neighbours, none empty, as equal as can be.

    The sum of the squared costs is the smallest; of several such divisions it is the one whose parts end first.
    """
    sums, count = [0, *accumulate(costs)], len(costs)
    best: dict[int, tuple[int, tuple[int, ...]]] = {count: (0, ())}  # of what begins at a position, in so many parts
    for parts in range(1, num_parts + 1):
        best = {
            start: min(
                ((sums[after] - sums[start]) ** 2 + best[after][0], (after - 1, *best[after][1]))
                for after in range(start + 1, count + 1)
                if after in best
            )
            for start in range(count - parts + 1)
        }
    return best[0][1]


def costs(backbone: Backbone, spec: DataSpec, split: str) -> list[int]:
    """What every block costs: 1, its floating-point operations, or the bytes that it keeps for the backward pass.

    Nothing is computed: a copy of the blocks runs on the meta device, forward, on two images.
    """
    if split == "equal":
        return [1] * backbone.num_blocks
    x_BCHW = torch.empty(2, spec.num_channels, spec.height, spec.width, device="meta")
    found = []
    for block in copy.deepcopy(backbone.blocks).to("meta"):
        counter, kept = FlopCounterMode(display=False), Kept()
        with counter, torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
            x_BCHW = block(x_BCHW).detach()
        found.append(counter.get_total_flops() if split == "flops" else kept.num_bytes)
    return found


class Kept:
    """Counts the memory that autograd holds on to, each storage once and parameters left out."""

    def __init__(self) -> None:
        self.tensors: dict[int, Tensor] = {}

    def pack(self, tensor: Tensor) -> Tensor:
        """Called by autograd with everything that it keeps."""
        if not isinstance(tensor, nn.Parameter):
            self.tensors[tensor.untyped_storage()._cdata] = tensor
        return tensor

    @property
    def num_bytes(self) -> int:
        """All of them together."""
        return sum(tensor.untyped_storage().nbytes() for tensor in self.tensors.values())


class Overlap:
    """The graphs of the last ``depth`` modules, through which the loss of the next one goes on down."""

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
