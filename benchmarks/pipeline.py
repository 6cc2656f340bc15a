"""Layer-parallel training against one block after the other, in one process, with the bits compared."""

from __future__ import annotations

import copy
import statistics
import time
from argparse import Namespace
from collections.abc import Callable

import torch

from benchmarks.steps import CPU, build_method
from datamodules.base import Batch
from engine.devices import autocast
from engine.meter import Totals
from engine.partition import measure_blocks, partition
from engine.pipeline import Pipeline
from methods._local import LocalMethod
from utils import UsageError

ROUNDS, STEPS = 5, 12  # steps of a round; filling and draining the pipeline is part of it

Train = Callable[[], None]  # one round


def _sequential(method: LocalMethod, batches: list[Batch], precision: str, threads: int) -> Train:
    optimizer = _optimizer(method)

    def train() -> None:
        torch.set_num_threads(threads)
        for batch in batches:
            with autocast(CPU, precision):
                method.fill_grads(batch)
            _update(optimizer, 0)

    return train


def _pipelined(method: LocalMethod, batches: list[Batch], precision: str, stages: list[range], threads: int) -> Train:
    torch.set_num_threads(threads)
    pipeline = Pipeline(method, stages, _optimizer(method), precision, lambda index, step: None, _update)

    def train() -> None:
        pipeline.run(range(len(batches)), batches.__getitem__, Totals(), lambda step: None)

    return train


def _optimizer(method: LocalMethod) -> torch.optim.Optimizer:
    return torch.optim.SGD(method.param_groups(), lr=0.01, momentum=0.9, fused=True)


def _update(optimizer: torch.optim.Optimizer, step: int) -> None:
    optimizer.step()
    optimizer.zero_grad()


def run(options: Namespace) -> int:
    """Print the table: images per second, best, median and slowest of the rounds; 1 if the bits differ."""
    threads, count = torch.get_num_threads(), options.num_stages
    model, batch_size = options.model[0], options.batch_size[0]
    method = build_method("dgl", {}, model)
    assert isinstance(method, LocalMethod)
    if count > method.backbone.num_blocks:
        raise UsageError(f"--num_stages {count}: {model} has {method.backbone.num_blocks} blocks")
    torch.manual_seed(1)
    batches = []
    for _ in range(STEPS):
        x_BCHW = torch.randn(batch_size, 3, 32, 32).to(memory_format=torch.channels_last)
        batches.append(Batch(x_BCHW, torch.randint(10, (batch_size,))))
    torch.set_num_threads(max(1, threads // count))
    costs = measure_blocks(method, batches[0], options.precision)
    stages = partition(costs, count)
    share = sum(costs) / (count * max(sum(costs[index] for index in stage) for stage in stages))
    print(f"stages {' | '.join(f'{stage[0]}-{stage[-1]}' for stage in stages)}, balance {share:.0%}")
    methods = [copy.deepcopy(method) for _ in range(3)]
    ways = {
        f"in turn, {threads} threads": _sequential(methods[0], batches, options.precision, threads),
        f"in turn, {threads // count or 1} threads": _sequential(
            methods[1], batches, options.precision, threads // count or 1
        ),
        f"{count} stages": _pipelined(methods[2], batches, options.precision, stages, threads),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name, train in ways.items():
            begin = time.perf_counter()
            train()
            if number:
                seconds[name].append(time.perf_counter() - begin)
    print("images per second: best, median, slowest; ratio of the medians to the first")
    reference = statistics.median(next(iter(seconds.values())))
    for name, times in seconds.items():
        rates = [STEPS * batch_size / value for value in (min(times), statistics.median(times), max(times))]
        print(
            f"{name:22} {rates[0]:6.0f} {rates[1]:6.0f} {rates[2]:6.0f}   {reference / statistics.median(times):5.2f} x"
        )
    pairs = zip(methods[1].state_dict().values(), methods[2].state_dict().values(), strict=True)
    same = all(torch.equal(one, other) for one, other in pairs)
    print(f"stages and in turn with as many threads in an operation: {'the same bits' if same else 'OTHER BITS'}")
    return int(not same)
