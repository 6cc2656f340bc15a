"""What was tried on a CPU beside the engine's step: ``python tried.py [MODEL ...]``.

All ways take turns in one process, on the same batch of random images, and must end with the same bits as the
engine's (compiled blocks need not: their kernels round elsewhere). Images per second of 25 steps, median and best.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parents[3]))

import torch
from torch import Tensor, nn

from benchmarks.steps import CPU, build_method
from datamodules.base import Batch
from engine.devices import autocast, compile_blocks, keep_freed_memory
from methods._base import Method

BATCH_SIZE, STEPS, SKIPPED = 64, 25, 3
WAYS = ("engine", "contiguous weights", "optimiser on NHWC views", "bf16 weights, fp32 masters", "compiled")


def rows_last(value: Tensor) -> Tensor:
    """A convolution's weight as its memory has it in channels_last; anything else as it is."""
    return value.permute(0, 2, 3, 1) if value.dim() == 4 else value


def optimizer_of(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The engine's."""
    return torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)


def other_parameters(
    method: Method, make: Callable[[nn.Parameter], nn.Parameter]
) -> tuple[list[dict[str, Any]], list[tuple[nn.Parameter, nn.Parameter]]]:
    """Groups of what ``make`` gives for every parameter, and the pairs."""
    pairs = {parameter: make(parameter) for parameter in method.parameters()}
    groups = method.param_groups()
    for group in groups:
        group["params"] = [pairs[parameter] for parameter in group["params"]]
    return groups, list(pairs.items())


def build(way: str, name: str, model: str) -> tuple[Callable[[], None], Method]:
    """A training step, and what it trains."""
    method = build_method(name, {}, model)
    x_BCHW = torch.randn(BATCH_SIZE, 3, 32, 32).to(memory_format=torch.channels_last)
    batch = Batch(x_BCHW, torch.randint(10, (BATCH_SIZE,)))
    pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
    if way == "contiguous weights":
        method.to(memory_format=torch.contiguous_format)
    if way == "compiled":
        compile_blocks(method, CPU)
    if way == "optimiser on NHWC views":
        groups, pairs = other_parameters(method, lambda value: nn.Parameter(rows_last(value.detach())))
    elif way == "bf16 weights, fp32 masters":
        return with_masters(method, Batch(batch.x_BCHW.bfloat16(), batch.y_B)), method
    else:
        groups = method.param_groups()
    optimizer = optimizer_of(groups)

    def step() -> None:
        with autocast(CPU, "bf16"):
            method.fill_grads(batch)
        for parameter, view in pairs:
            assert parameter.grad is not None
            view.grad = rows_last(parameter.grad)
        optimizer.step()
        optimizer.zero_grad()
        method.zero_grad()

    return step, method


def with_masters(method: Method, batch: Batch) -> Callable[[], None]:
    """Convolutions and linear layers hold bf16 weights, the optimiser holds them in fp32."""
    groups, pairs = other_parameters(method, lambda value: nn.Parameter(rows_last(value.detach()).clone()))
    for module in method.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.to(torch.bfloat16)
    optimizer = optimizer_of(groups)
    low, high = [rows_last(value.detach()) for value, _ in pairs], [master.detach() for _, master in pairs]
    grads = []
    for _, master in pairs:
        master.grad = torch.empty_like(master)
        grads.append(master.grad)

    def step() -> None:
        method.fill_grads(batch)
        torch._foreach_copy_(grads, [rows_last(cast(Tensor, value.grad)) for value, _ in pairs])
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
                for way, (step, _) in built.items():
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
