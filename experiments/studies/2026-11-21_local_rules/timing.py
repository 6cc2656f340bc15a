"""What a step of every rule costs: ``python experiments/studies/2026-11-21_local_rules/timing.py NETWORK OUT.csv``.

Images per second of training with one thread, batch 128, bf16, all rules in turns; the first round does not count.
"""

from __future__ import annotations

import csv
import statistics
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[3]), str(Path(__file__).parent)]

ROUNDS, STEPS = 5, 3


def main() -> None:
    """Time them, and write medians and ratios to back-propagation."""
    import torch
    from loguru import logger
    from run import COMMON, RULES

    import cli
    from benchmarks.engine import Run, build_method, make_feed, random_images
    from engine.devices import keep_freed_memory

    logger.remove()  # the table is the only thing to read
    keep_freed_memory()
    torch.set_num_threads(1)
    network, out = sys.argv[1:]
    images, runs = random_images(128 * STEPS), {}
    for name, flags in RULES.items():
        args = cli.parse([*COMMON.split(), *flags.split(), "--model", network]).args
        assert args is not None
        method = build_method(args)
        runs[name] = Run(args, make_feed(args, images, two_views=method.two_views), method)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(ROUNDS + 1):
        for name, run in runs.items():
            begin = time.perf_counter()
            run.take(STEPS)
            if number:
                times[name].append(time.perf_counter() - begin)
    with Path(out).open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["rule", "images_per_second", "time_over_bp", "slowest_over_fastest"])
        for name, taken in times.items():
            ratio = statistics.median(one / bp for one, bp in zip(taken, times["bp"], strict=True))
            rate = 128 * STEPS / statistics.median(taken)
            writer.writerow([name, f"{rate:.0f}", f"{ratio:.3f}", f"{max(taken) / min(taken):.2f}"])
            print(f"{name:14} {rate:7.0f} {ratio:6.2f}")


if __name__ == "__main__":
    main()
