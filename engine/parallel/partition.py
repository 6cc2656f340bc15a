"""Which blocks form a stage of the pipeline."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from itertools import pairwise

import torch
from loguru import logger

from consts import block_name
from datamodules.base import Batch
from engine.loop.part import Rules
from engine.loop.recorded import random_state
from engine.parallel.stage import Stage
from methods._base import Method
from methods._local import LocalMethod
from model import cut
from schemas import RunArgs
from utils import UsageError


def choose_stages(args: RunArgs, method: Method, batch: Batch) -> list[range]:
    """The stages that ``--layer_parallel`` asks for; empty where it is off.

    Raises:
        UsageError: there are fewer blocks than stages, or threads would share a GPU.
    """
    if args.layer_parallel == "off":
        return []
    assert isinstance(method, LocalMethod) and method.traits.isolation == "block"  # the settings refuse all others
    if batch.x_BCHW.is_cuda and args.layer_parallel == "threads":
        raise UsageError("--layer_parallel threads is for a CPU; give --device cpu, or --layer_parallel processes")
    check_that_nothing_is_drawn(method, batch)
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


def check_that_nothing_is_drawn(method: LocalMethod, batch: Batch) -> None:
    """Refuse blocks that draw from torch's generator in a forward pass; masks with keys of their own are fine.

    Stages side by side would draw in another order than one after the other. Copies run on two images.

    Raises:
        UsageError: naming the first such block.
    """
    network, h_BCHW = copy.deepcopy(method.backbone).train(), batch.x_BCHW[:2]
    with torch.no_grad(), torch.random.fork_rng(devices=[h_BCHW.device] if h_BCHW.is_cuda else []):
        for index in range(network.num_blocks):
            network.key_dropout(index, 0)
            before = random_state(h_BCHW.device)
            h_BCHW = network.block(index)(h_BCHW)
            if index == method.last:
                network.classifier(h_BCHW)
            if not torch.equal(before, random_state(h_BCHW.device)):
                raise UsageError(
                    f"--layer_parallel: {block_name(index)} draws random numbers in a way that stages side by side "
                    "cannot repeat; use nn.Dropout, each layer once in a pass, or give --layer_parallel off"
                )


def partition(costs: Sequence[float], num_stages: int) -> list[range]:
    """Cut a chain of blocks into contiguous stages such that the largest cost of a stage is as small as possible."""
    ends = cut(costs, num_stages, max)
    return [range(begin + 1, end + 1) for begin, end in pairwise((-1, *ends))]


def measure_blocks(method: LocalMethod, batch: Batch, precision: str, rounds: int = 4) -> list[float]:
    """Seconds that each trainable block takes for one training step on ``batch``, the best of ``rounds``.

    A copy is trained, with SGD; the method and the random state are as before.
    """
    probe, device = copy.deepcopy(method), batch.x_BCHW.device
    optimizer = torch.optim.SGD(probe.param_groups(), lr=0.0, momentum=0.9, fused=True)
    blocks = range(probe.first_trainable, probe.last + 1)
    stages = [Stage(probe, range(index, index + 1), optimizer, Rules(precision)) for index in blocks]
    best = [float("inf")] * len(stages)
    with torch.random.fork_rng(devices=[]):
        for _ in range(rounds):
            prepared, h_BCHW = stages[0].inputs(batch)
            for place, stage in enumerate(stages):
                begin = _now(device)
                out_BCHW, _ = stage.learn(prepared, h_BCHW, 0.0)
                best[place] = min(best[place], _now(device) - begin)
                h_BCHW = h_BCHW if out_BCHW is None else out_BCHW
    return best


def _now(device: torch.device) -> float:
    """Seconds, once the device has finished all work."""
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
