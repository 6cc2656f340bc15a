"""``python -m benchmarks speed``, ``memory`` or ``pipeline``: training steps on random images, on the CPU."""

from __future__ import annotations

import argparse
import platform
import sys

from benchmarks import memory, pipeline, speed

BENCHMARKS = {"speed": speed, "memory": memory, "pipeline": pipeline}


def main() -> int:
    """Run the benchmark that was named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="?", choices=tuple(BENCHMARKS), default="speed")
    parser.add_argument("--model", default="BasicCNN")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--num_stages", type=int, default=2, help="of pipeline")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variant:
        memory.measure(options)
        return 0
    import torch

    print(f"{options.model}, batch {options.batch_size}, {options.precision}; torch {torch.__version__}, "
          f"{platform.machine()}, {torch.get_num_threads()} threads")  # fmt: skip
    return BENCHMARKS[options.what].run(options)


if __name__ == "__main__":
    sys.exit(main())
