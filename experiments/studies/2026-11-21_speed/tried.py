"""What was tried on a CPU beside the engine's step: ``python tried.py [MODEL ...]``.

All ways take turns in one process, in another order every time, on the same batch of random images; whether they end
with the engine's bits stands at the end of the line. Images per second of 24 steps, median and best, and the ratio to
the engine.
With ``MALLOC_ARENA_TEST=8`` before it, freed memory goes back to the system as glibc wants it.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parents[3]))

import torch
from torch import Tensor, nn

from benchmarks.engine import CPU, build_method, settings
from datamodules.base import Batch
from engine.devices import autocast, compile_blocks, keep_freed_memory
from engine.loop.optimizer import MemoryOrder
from layers.convolution import Conv2d
from layers.pooling import AvgPool2d
from methods._base import Method

BATCH_SIZE, STEPS, SKIPPED = 64, 28, 4
# Kept, each taken away: what it brings. Then what was not kept, each added.
KEPT = ("torch's convolutions", "torch's average pools", "torch's optimiser", "all three of torch")
WAYS = ("engine", *KEPT, "pool before ReLU", "contiguous weights", "bf16 weights, fp32 masters", "compiled")


def rows_last(value: Tensor) -> Tensor:
    """A convolution's weight as its memory has it in channels_last; anything else as it is."""
    return value.permute(0, 2, 3, 1) if value.dim() == 4 else value


def optimizer_of(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The engine's."""
    return torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)


def use_torchs(method: Method, *kinds: type[nn.Module]) -> None:
    """Give back the layers of ``kinds`` to torch."""
    for layer in method.modules():
        if type(layer) in kinds:
            layer.__class__ = type(layer).__base__  # type: ignore[assignment]


def pool_first(method: Method) -> None:
    """ReLU behind the pool, where it has a quarter of the pixels."""
    for block in map(method.backbone.block, range(method.backbone.num_blocks)):
        if isinstance(block.pool, nn.MaxPool2d) and isinstance(block.features, nn.Sequential):
            block.features[-1] = nn.Identity()
            block.pool = nn.Sequential(block.pool, nn.ReLU(inplace=True))


def build(way: str, name: str, model: str) -> tuple[Callable[[], None], Method]:
    """A training step, and what it trains."""
    method = build_method(settings(name, model, BATCH_SIZE))
    x_BCHW = torch.randn(BATCH_SIZE, 3, 32, 32).to(memory_format=torch.channels_last)
    batch = Batch(x_BCHW, torch.randint(10, (BATCH_SIZE,)))
    if way in ("torch's convolutions", "all three of torch"):
        use_torchs(method, Conv2d)
    if way in ("torch's average pools", "all three of torch"):
        use_torchs(method, AvgPool2d)
    if way == "pool before ReLU":
        pool_first(method)
    if way == "contiguous weights":
        method.to(memory_format=torch.contiguous_format)
    if way == "compiled":
        compile_blocks(method, CPU)
    if way == "bf16 weights, fp32 masters":
        return with_masters(method, Batch(batch.x_BCHW.bfloat16(), batch.y_B)), method
    optimizer = optimizer_of(method.param_groups())
    order = contextlib.nullcontext if way in ("torch's optimiser", "all three of torch") else MemoryOrder

    def step() -> None:
        with autocast(CPU, "bf16"):
            method.fill_grads(batch)
        with order():
            optimizer.step()
        optimizer.zero_grad()

    return step, method


def with_masters(method: Method, batch: Batch) -> Callable[[], None]:
    """Convolutions and linear layers hold bf16 weights, the optimiser holds them in fp32."""
    pairs = {parameter: nn.Parameter(rows_last(parameter.detach()).clone()) for parameter in method.parameters()}
    groups = method.param_groups()
    for group in groups:
        group["params"] = [pairs[parameter] for parameter in group["params"]]
    for module in method.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.to(torch.bfloat16)
    optimizer = optimizer_of(groups)
    low, high = [rows_last(value.detach()) for value in pairs], [master.detach() for master in pairs.values()]
    grads = []
    for master in pairs.values():
        master.grad = torch.empty_like(master)
        grads.append(master.grad)

    def step() -> None:
        method.fill_grads(batch)
        torch._foreach_copy_(grads, [rows_last(cast(Tensor, value.grad)) for value in pairs])
        optimizer.step()
        torch._foreach_copy_(low, high)
        method.zero_grad()

    return step


def main(models: list[str]) -> None:
    """Print a line for every network, method and way."""
    keep_freed_memory()
    for model in models:
        for name in ("bp", "dgl"):
            built = {way: build(way, name, model) for way in WAYS}  # every one seeds anew
            seconds: dict[str, list[float]] = {way: [] for way in WAYS}
            for number in range(STEPS):
                for way in random.Random(number).sample(WAYS, len(WAYS)):  # each leaves the next one its caches
                    step = built[way][0]
                    begin = time.perf_counter()
                    step()
                    if number >= SKIPPED:
                        seconds[way].append(time.perf_counter() - begin)
            reference = list(built["engine"][1].state_dict().values())
            for way, (_, method) in built.items():
                pairs = zip(reference, method.state_dict().values(), strict=True)
                same = all(torch.equal(ours.to(theirs.dtype), theirs) for ours, theirs in pairs)
                rate, best = BATCH_SIZE / statistics.median(seconds[way]), BATCH_SIZE / min(seconds[way])
                ratio = statistics.median(seconds["engine"]) / statistics.median(seconds[way])
                print(f"{model:9} {name:4} {way:27} {rate:5.0f} {best:5.0f} images/s {ratio:5.2f} x "
                      f"{'same bits' if same else 'other bits'}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:] or ["BasicCNN", "VGG11", "VGG16"])
