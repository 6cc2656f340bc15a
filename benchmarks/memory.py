"""Peak memory of a training step, every way of training in a process of its own."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from argparse import Namespace

VARIANTS = ("bp", "bp_autograd", "dgl", "dgl_sum_of_losses", "dgl_direct_global")
STEPS = 3
# glibc gives large freed blocks back at once, so that resident memory follows what is allocated.
EAGER_FREE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def measure(options: Namespace) -> None:
    """In the child: print the peak resident memory (MiB) above that of the warm process, and the last loss."""
    from benchmarks.steps import build_step

    step, _ = build_step(options.variant, options.model, options.batch_size, options.precision)
    step(2)  # libraries and optimiser state are there before the clock of memory starts
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    losses = [step(options.batch_size) for _ in range(STEPS)]
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, losses[-1])


def run(options: Namespace) -> int:
    """Print the table; 1 if the two forms of the same gradient disagree."""
    results = {}
    for variant in VARIANTS:
        command = [sys.executable, "-m", "benchmarks", *sys.argv[1:], "--variant", variant]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | EAGER_FREE)
        results[variant] = [float(word) for word in done.stdout.split()]
    print("peak resident memory above that of the warm process")
    for variant, (peak_mib, loss) in results.items():
        ratio = peak_mib / results["dgl_sum_of_losses"][0]
        print(f"{variant:20} {peak_mib:8.0f} MiB   {ratio:5.2f} x sum of losses   loss {loss:.6f}")
    return int(abs(results["dgl"][1] - results["dgl_sum_of_losses"][1]) > 1e-3)
