"""``python -m benchmarks.footprint FLAGS``: what training with these flags of ``main.py`` takes in memory.

Prints MiB: the peak over three steps on random images of 32x32 in ten classes, with weights, gradients and the
optimiser's state, above what the process had before the network was built. On a CPU that is resident memory, after
steps of another small network have loaded the libraries; on a GPU what PyTorch's allocator had given out.
"""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

import cli
from benchmarks.engine import Run, build_method, make_feed, random_images, settings
from benchmarks.workers import Work, Worker
from engine.devices import check_precision, resolve_device, use_device
from schemas import Args
from utils import UsageError, UserError

# glibc gives large freed blocks back at once, so that resident memory follows what is allocated. It reads them when a
# process starts.
EAGER_FREE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
STEPS = 3  # the optimiser's state is there from the first on


def peak_mib(work: Work, device: torch.device) -> float:
    """The most memory that was in use at once during ``work``, above what was in use before it, in MiB.

    On a CPU it is resident memory of the process, which should run with `EAGER_FREE`.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far, see proc(5)
    before = _resident_kib()["VmRSS"]  # now
    work()
    return (_resident_kib()["VmHWM"] - before) / 2**10  # at most


def _resident_kib() -> dict[str, int]:
    lines = re.findall(r"(VmRSS|VmHWM):\s*(\d+) kB", Path("/proc/self/status").read_text())
    return {name: int(number) for name, number in lines}


def footprint(flags: Sequence[str]) -> float:
    """The figure, from a process of its own.

    Raises:
        UsageError: the flags are wrong, leave the precision open, or ask for what the machine has not.
    """
    asked = cli.parse([*flags])
    if asked.args is None or asked.verb != "train":
        raise UsageError(f"{' '.join(flags)}: allowed are the flags of a training run; give those alone")
    run = asked.args.run
    if run.layer_parallel != "off" or run.num_replicas > 1 or run.compile:
        said = "--layer_parallel, --num_replicas and --compile have no effect here"
        raise UsageError(f"{said}: one process takes eager steps; omit them")
    if run.precision == "auto":
        raise UsageError("--precision auto: the memory goes by it; give fp32 or bf16")
    check_precision(resolve_device(run.device), run.precision)
    with Worker(Training, asked.args, environment=EAGER_FREE) as worker:
        return float(worker.ask("peak"))


class Training:
    """Memory of a few training steps, measured after the libraries are loaded."""

    def __init__(self, args: Args) -> None:
        self._args, self._device = args, use_device(args.run.device)
        self._train(settings("bp", "BasicCNN", 2, precision=args.run.precision))

    def _train(self, args: Args) -> None:
        method = build_method(args, self._device)
        images = random_images(args.optim.batch_size * STEPS)
        Run(args, make_feed(args, images, self._device, two_views=method.two_views), method).take(STEPS)

    def peak(self) -> float:
        """The most that the run takes, in MiB."""
        return peak_mib(lambda: self._train(self._args), self._device)


if __name__ == "__main__":
    try:
        print(f"{footprint(sys.argv[1:]):.1f}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
