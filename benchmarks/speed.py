"""Images per second of a training step, the ways of training taking turns in one process."""

from __future__ import annotations

import statistics
import time
from argparse import Namespace

ROUNDS = 9


def run(options: Namespace) -> int:
    """Print the table: best, median and slowest of the rounds, after one round that is not counted."""
    from benchmarks.steps import VARIANTS, build_step

    built = {name: build_step(name, options.model, options.batch_size, options.precision) for name in VARIANTS}
    seconds: dict[str, list[float]] = {name: [] for name in built}
    for count in range(ROUNDS + 1):
        for name, (step, _) in built.items():
            begin = time.perf_counter()
            step(options.batch_size)
            if count:
                seconds[name].append(time.perf_counter() - begin)
    print("images per second: best, median, slowest; ratio of the medians to bp; parameters in heads")
    reference = statistics.median(seconds["bp"])
    for name, times in seconds.items():
        rates = [options.batch_size / value for value in (min(times), statistics.median(times), max(times))]
        ratio = reference / statistics.median(times)
        print(f"{name:20} {rates[0]:6.0f} {rates[1]:6.0f} {rates[2]:6.0f}   {ratio:5.2f} x bp   {built[name][1]:>12,}")
    return 0
