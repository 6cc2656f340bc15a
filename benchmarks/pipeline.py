"""Layer-parallel training against one block after the other: threads and processes, with the bits compared."""

from __future__ import annotations

import contextlib
import statistics
from argparse import Namespace

import torch

from benchmarks.layouts import Runner, Way, Work
from engine.devices import keep_freed_memory
from engine.parallel.partition import measure_blocks, partition
from utils import UsageError


def choose_ways(work: Work, num_stages: int, threads: int) -> dict[str, Way]:
    """What is compared, by name; the first is what the others are measured by.

    Raises:
        UsageError: there are fewer blocks than stages.
    """
    keep_freed_memory()
    method = work.method()
    count = method.backbone.num_blocks
    if num_stages > count:
        raise UsageError(f"--num_stages {num_stages}: {work.model} has {count} blocks")
    share = max(1, threads // num_stages)
    torch.set_num_threads(share)
    costs = measure_blocks(method, work.batches()[0], work.precision)
    torch.set_num_threads(threads)
    stages = tuple(partition(costs, num_stages))
    busiest = max(sum(costs[index] for index in stage) for stage in stages)
    names = " | ".join(f"{stage[0]}-{stage[-1]}" for stage in stages)
    print(f"{work.model}, batch {work.batch_size}, {work.precision}: stages {names}, "
          f"balance {sum(costs) / (num_stages * busiest):.0%}")  # fmt: skip
    print("ms of each block: " + " ".join(f"{cost * 1000:.1f}" for cost in costs))
    everything = (range(count),)
    return {
        f"in turn, {threads} threads": Way("turn", everything, threads),
        f"in turn, {share} of them": Way("turn", everything, share),
        f"{num_stages} stages in threads": Way("threads", stages, threads),
        f"{num_stages} stages in processes": Way("processes", stages, share),
        "one stage, as a process": Way("processes", everything, threads),
    }


def run(options: Namespace) -> int:
    """Print a table for every network and batch size; 1 if the bits differ."""
    code = 0
    for model in options.model:
        for batch_size in options.batch_size:
            code |= compare(Work(model, batch_size, options.precision, options.steps), options)
    return code


def compare(work: Work, options: Namespace) -> int:
    """Print one table: images per second, best, median and slowest of the rounds; 1 if the bits differ."""
    ways = choose_ways(work, options.num_stages, torch.get_num_threads())
    with contextlib.ExitStack() as held:
        runners = {name: held.enter_context(Runner(work, way)) for name, way in ways.items()}
        for runner in runners.values():
            runner.wait()
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(options.rounds + 1):
            for name, runner in runners.items():
                taken = runner.turn()
                if number:  # the first warms up
                    seconds[name].append(taken)
        print("images per second: best, median, slowest; median of the rounds' ratios to the first, and their range")
        reference = next(iter(seconds.values()))
        for name, times in seconds.items():
            rates = [
                work.num_steps * work.batch_size / value for value in (min(times), statistics.median(times), max(times))
            ]
            ratios = sorted(first / own for first, own in zip(reference, times, strict=True))
            print(f"{name:24} {rates[0]:6.0f} {rates[1]:6.0f} {rates[2]:6.0f}   "
                  f"{statistics.median(ratios):5.2f} x ({ratios[0]:.2f} to {ratios[-1]:.2f})")  # fmt: skip
        states = {name: runner.state() for name, runner in runners.items()}
    names = list(ways)
    pairs = [(names[0], names[4]), (names[1], names[2]), (names[1], names[3])]  # as many threads in an operation
    differ = [
        f"{one} and {other}"
        for one, other in pairs
        if not all(torch.equal(value, states[other][key]) for key, value in states[one].items())
    ]
    print(f"OTHER BITS: {'; '.join(differ)}" if differ else "the same bits wherever an operation has as many threads")
    return int(bool(differ))
