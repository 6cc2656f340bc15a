"""What a network costs block by block: measured on this machine, or, for ResNet-152, counted."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

import torch
from torch import Tensor

from benchmarks.engine import CPU, build_method, make_feed, random_images
from engine.devices import autocast
from engine.loop.optimizer import optimizer_of
from engine.loop.optimizer import update as engine_update
from layers.saved import SavedBytes
from methods._local import LocalMethod
from schemas import Args

BYTES_PER_PARAMETER = 12  # weight, gradient and momentum in float32
MESSAGE_BYTES = 2  # bfloat16


@dataclass(frozen=True)
class Block:
    """One block with ``batch_size`` images of its chain.

    Attributes:
        local_s, bp_s: seconds of a training step with a loss of its own, and as a part of back-propagation.
        local_parameters, bp_parameters: with and without its head.
        local_bytes, bp_bytes: what autograd keeps for its backward pass.
        message_bytes: its output.
    """

    local_s: float
    bp_s: float
    local_parameters: int
    bp_parameters: int
    local_bytes: int
    bp_bytes: int
    message_bytes: int


@dataclass(frozen=True)
class Chain:
    """A network: its blocks, and how they came to be known."""

    name: str
    batch_size: int
    origin: str
    blocks: tuple[Block, ...]

    def faster(self, factor: float) -> Chain:
        """The same on devices ``factor`` times as fast."""
        blocks = [replace(block, local_s=block.local_s / factor, bp_s=block.bp_s / factor) for block in self.blocks]
        return replace(self, blocks=tuple(blocks))


def best_seconds(work: Callable[[], object], rounds: int) -> float:
    """The fastest of some times, after one that does not count."""
    times = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times[1:])


def measure(args: Args, rounds: int = 3) -> Chain:
    """Time every block of the network by itself, gradients and update; with the threads that torch has now."""
    method = build_method(args)
    assert isinstance(method, LocalMethod)
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.01, momentum=0.9, fused=True)
    batch = make_feed(args, random_images(args.optim.batch_size)).batch(0, 0)
    h_BCHW, found = batch.x_BCHW, []
    for index in range(method.backbone.num_blocks):
        block, heads = method.backbone.block(index), method.block_heads(index)
        own = optimizer_of(optimizer, range(index, index + 1))
        kept, kept_by_bp = SavedBytes(method.parameters()), SavedBytes(method.parameters())
        x_BCHW, out = h_BCHW, [h_BCHW]

        def local(x_BCHW: Tensor = x_BCHW, index: int = index, out: list[Tensor] = out) -> None:
            with autocast(CPU, args.run.precision):
                out[0], _ = method.fill_block_grads(index, x_BCHW, batch)

        def bp(x_BCHW: Tensor = x_BCHW, index: int = index) -> None:
            leaf_BCHW = x_BCHW.detach().requires_grad_(index > 0)
            with autocast(CPU, args.run.precision):
                out_BCHW = method.backbone.block(index)(leaf_BCHW)
            out_BCHW.backward(torch.ones_like(out_BCHW))

        def update(own: torch.optim.Optimizer = own) -> None:
            engine_update(own, 0.01, 0.0)

        local_s, bp_s = best_seconds(local, rounds), best_seconds(bp, rounds)
        update_s = best_seconds(update, rounds)
        own.zero_grad()
        for counter, step in ((kept, local), (kept_by_bp, bp)):
            with counter.hooks:
                step()
        own.zero_grad()
        h_BCHW = out[0]
        parameters = sum(value.numel() for value in block.parameters())
        with_heads = parameters + sum(value.numel() for head in heads for value in head.parameters())
        found.append(
            Block(
                local_s + update_s,
                bp_s + update_s * parameters / with_heads,
                with_heads,
                parameters,
                kept.peak_bytes,
                kept_by_bp.peak_bytes,
                h_BCHW.numel() * h_BCHW.element_size(),
            )
        )
    return Chain(args.model.model, args.optim.batch_size, f"measured, {args.run.precision}", tuple(found))


def resnet152(batch_size: int, flops_per_s: float) -> Chain:
    """ResNet-152 (He et al. 2016) on images of 224x224, its stem and 50 residual blocks, counted and not measured.

    Three times the forward operations at ``flops_per_s``; every convolution keeps its input and its output in
    bfloat16; a block's own loss is that of a linear layer behind an average, which costs nothing beside it.
    """
    found = [_counted(batch_size, 64 * 3 * 49 * 112**2, 9408 + 128, 2 * 64 * 112**2, 64 * 56**2, flops_per_s)]
    channels = 64
    for stage, count in enumerate((3, 8, 36, 3)):
        width, side = 64 * 2**stage, 56 // 2**stage
        for number in range(count):
            shrinks = number == 0 and stage > 0
            before = side * (2 if shrinks else 1)
            shortcut = channels * 4 * width if number == 0 else 0
            weights = channels * width + 9 * width**2 + 4 * width**2 + shortcut
            multiply_adds = channels * width * before**2 + (13 * width**2 + shortcut) * side**2
            outputs = width * before**2 + width * side**2 + 4 * width * side**2 * (2 if number == 0 else 1)
            channels = 4 * width
            found.append(_counted(batch_size, multiply_adds, weights, 2 * outputs, channels * side**2, flops_per_s))
    return Chain("ResNet-152 (224x224)", batch_size, "counted", tuple(found))


def _counted(batch_size: int, multiply_adds: int, weights: int, kept: int, outputs: int, flops_per_s: float) -> Block:
    seconds = 3 * 2 * multiply_adds * batch_size / flops_per_s
    kept_bytes, message = MESSAGE_BYTES * kept * batch_size, MESSAGE_BYTES * outputs * batch_size
    return Block(seconds, seconds, weights, weights, kept_bytes, kept_bytes, message)
