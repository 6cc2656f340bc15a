"""Peak memory of a training step, every way of training in a process of its own."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from argparse import Namespace

from benchmarks import tables
from benchmarks.footprint import EAGER_FREE

VARIANTS = ("dgl", "dgl_sum_of_losses", "bp", "bp_autograd", "dgl_direct_global")
STEPS = 2


def measure(options: Namespace) -> None:
    """In the child: print the peak resident memory (MiB) above that of the warm process, and the last loss."""
    from benchmarks.steps import build_step

    (batch_size,) = options.batch_size
    step, _ = build_step(options.variant, options.model[0], batch_size, options.precision)
    step(2)  # libraries and optimiser state are there before the clock of memory starts
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    losses = [step(batch_size) for _ in range(STEPS)]
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, losses[-1])


def run(options: Namespace) -> int:
    """Print the table; 1 if the two forms of the same gradient disagree."""
    model, batch_size = options.model[0], options.batch_size[0]
    rows = []
    for variant in VARIANTS:
        command = [sys.executable, "-m", "benchmarks", "memory", "--model", model, "--batch_size", str(batch_size),
                   "--precision", options.precision, "--variant", variant]  # fmt: skip
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | EAGER_FREE)
        peak_mib, loss = (float(word) for word in done.stdout.split())
        rows.append({"way": variant, "model": model, "batch_size": batch_size, "peak_mib": peak_mib, "loss": loss})
    ours = rows[0]["peak_mib"]
    table = [row | {"ratio": ours / row["peak_mib"]} for row in rows]
    print(f"\n{model}, batch {batch_size}, {options.precision}: peak resident memory above that of the warm process")
    print(tables.text(table, {"way": "", "peak_mib": "MiB", "ratio": "dgl over it", "loss": "loss"}))
    tables.write_csv(options.out / "memory.csv", table)
    return int(abs(rows[0]["loss"] - rows[1]["loss"]) > 1e-3)
