"""Which blocks stand together in a stage of the pipeline."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from itertools import pairwise

import torch
from loguru import logger

from datamodules.base import Batch
from engine.devices import autocast
from engine.loop.optimizer import update
from engine.parallel.stage import optimizer_of
from methods._base import Method
from methods._local import LocalMethod
from schemas import RunArgs
from utils import UsageError


def partition(costs: Sequence[float], num_stages: int) -> list[range]:
    """Cut a chain into contiguous stages such that the dearest stage is as cheap as possible.

    Args:
        costs: of every block, positive.
        num_stages: at most as many as there are blocks.

    Among equals the earliest cuts win. Dynamic programming over (stages, blocks): exact, and quick for chains of some
    hundreds.
    """
    count = len(costs)
    total = [0.0]
    for cost in costs:
        total.append(total[-1] + cost)
    best: list[list[tuple[float, tuple[int, ...]]]] = [[(total[end], (0, end)) for end in range(count + 1)]]
    for _ in range(1, num_stages):
        row = []
        for end in range(count + 1):
            options = [
                (max(best[-1][cut][0], total[end] - total[cut]), (*best[-1][cut][1], end)) for cut in range(end + 1)
            ]
            row.append(min(options, key=lambda option: (option[0], len(set(option[1])) < len(option[1]))))
        best.append(row)
    return [range(begin, end) for begin, end in pairwise(best[-1][count][1])]


def choose_stages(args: RunArgs, method: Method, batch: Batch) -> list[range]:
    """The stages that ``--layer_parallel`` asks for; empty where it is off.

    Raises:
        UsageError: the blocks do not learn on their own, there are fewer of them than stages, or threads would share a
            GPU.
    """
    if args.layer_parallel == "off":
        return []
    asked = f"--layer_parallel {args.layer_parallel}"
    if method.traits.isolation != "block" or not isinstance(method, LocalMethod):
        raise UsageError(
            f"{asked}: the blocks of this method do not learn on their own, each waits for a signal or for weights "
            f"from above; use a local one, as --dgl without --is_direct_global, --overlap or --man"
        )
    if batch.x_BCHW.is_cuda and args.layer_parallel == "threads":
        raise UsageError(f"{asked} is for a CPU; give --device cpu, or --layer_parallel processes")
    first, count = method.first_trainable, method.last + 1 - method.first_trainable
    if args.stages is not None:
        stages = parse_stages(args.stages, first, method.last)
    elif args.num_stages > count:
        raise UsageError(f"--num_stages {args.num_stages}: there are {count} trainable blocks, so at most {count}")
    else:
        costs = measure_blocks(method, batch, args.precision)
        stages = [range(first + part.start, first + part.stop) for part in partition(costs, args.num_stages)]
        totals = [sum(costs[index - first] for index in stage) for stage in stages]
        logger.info(
            f"Layer-parallel: blocks {' | '.join(f'{stage[0]}-{stage[-1]}' for stage in stages)}, "
            f"{sum(totals) / (len(totals) * max(totals)):.0%} of the busiest one's time expected"
        )
    return stages


def measure_blocks(method: LocalMethod, batch: Batch, precision: str, rounds: int = 4) -> list[float]:
    """Seconds that each trainable block takes for one training step on ``batch``, the best of ``rounds``.

    A copy is trained, with SGD; the method and the random state are as before.
    """
    probe = copy.deepcopy(method)
    optimizer = torch.optim.SGD(probe.param_groups(), lr=0.0, momentum=0.9, fused=True)
    updates = {index: optimizer_of(optimizer, range(index, index + 1)) for index in range(probe.last + 1)}
    best = [float("inf")] * (method.last + 1 - method.first_trainable)
    with torch.random.fork_rng(devices=[]), autocast(batch.x_BCHW.device, precision):
        for _ in range(rounds):
            prepared = probe.prepare(batch)
            h_BCHW = probe.run_frozen(prepared.x_BCHW)
            for place, index in enumerate(range(method.first_trainable, method.last + 1)):
                begin = _now(batch.x_BCHW.device)
                h_BCHW, _ = probe.fill_block_grads(index, h_BCHW, prepared)
                update(updates[index], 0.0, 0.0)
                best[place] = min(best[place], _now(batch.x_BCHW.device) - begin)
    return best


def _now(device: torch.device) -> float:
    """Seconds, when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def parse_stages(text: str, first: int, last: int) -> list[range]:
    """``0-2,3-7`` as ranges of blocks.

    Raises:
        UsageError: they are not all trainable blocks in order, each once.
    """
    stages = []
    for part in text.split(","):
        begin, _, end = part.partition("-")
        stages.append(range(int(begin), int(end or begin) + 1))
    if [index for stage in stages for index in stage] != list(range(first, last + 1)) or not all(stages):
        raise UsageError(
            f"--stages {text!r}: must name the trainable blocks {first} to {last} in order, each once, with a comma "
            f"between two stages"
        )
    return stages
