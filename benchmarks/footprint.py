"""``python -m benchmarks.footprint FLAGS``: what training with these flags of ``main.py`` takes in memory.

Prints MiB: the peak over three steps on random images of 32x32 in ten classes, with weights, gradients and the
optimiser's state, above what the process had before the network was built. On a CPU that is resident memory, after
steps of another small network have loaded the libraries; on a GPU what PyTorch's allocator had given out.
"""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from utils import UsageError, UserError

# glibc gives large freed blocks back at once, so that resident memory follows what is allocated.
EAGER_FREE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
STEPS = 3  # the optimiser's state is there from the first on


def footprint(flags: Sequence[str]) -> float:
    """The figure, from a process of its own.

    Raises:
        CalledProcessError: the flags are wrong; a line on stderr says why.
    """
    command = [sys.executable, "-m", "benchmarks.footprint", *flags]
    home = Path(__file__).parents[1]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=home)
    return float(done.stdout)


def _resident(which: str) -> int:
    """Bytes: ``VmRSS`` now, ``VmHWM`` at most since `_forget_peak`."""
    found = re.search(rf"{which}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")  # see proc(5); getrusage's peak would be that of the imports


def main(words: list[str]) -> None:
    """Print the figure.

    Raises:
        UsageError: the flags are wrong, or leave the precision open.
    """
    import torch
    from loguru import logger

    import cli
    from benchmarks.on_gpu.runs import SPEC, Run, build_method, random_images
    from datamodules.feed import Feed
    from engine.devices import resolve_device
    from schemas import Args

    logger.remove()

    def train(args: Args, device: torch.device) -> Run:
        method, size = build_method(args, device), args.optim.batch_size
        feed = Feed(
            random_images(size * STEPS), SPEC, size, device, augment=args.data, two_views=method.two_views
        )  # fmt: skip
        run = Run(args, feed, method)
        run.take(STEPS)
        return run

    asked = cli.parse(words)
    if asked.args is None or asked.verb != "train":
        raise UsageError(f"{' '.join(words)}: allowed are the flags of a training run; give those alone")
    device, precision = resolve_device(asked.args.run.device), asked.args.run.precision
    if asked.args.run.layer_parallel != "off" or asked.args.run.compile:
        raise UsageError("--layer_parallel and --compile have no effect here: one process takes eager steps; omit them")
    if precision == "auto":
        raise UsageError("--precision auto: the memory goes by it; give fp32 or bf16")
    warm = cli.parse(["--model", "BasicCNN", "--batch_size", "2", "--epochs", "1", "--precision", precision]).args
    assert warm is not None
    train(warm, device)
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    else:
        _forget_peak()
        before = _resident("VmRSS")
    run = train(asked.args, device)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident("VmHWM")
    del run  # until here, so that nothing of it was freed
    print(f"{(peak - before) / 2**20:.1f}")


if __name__ == "__main__":
    if not EAGER_FREE.items() <= os.environ.items():  # glibc reads them when a process starts
        command = [sys.executable, "-m", "benchmarks.footprint", *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | EAGER_FREE)
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
