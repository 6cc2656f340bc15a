"""``python -m benchmarks [throughput|memory|input|tax|pipeline|accuracy|gpu]``.

Without a name the first three, one after another. Everything else on the machine should be at rest.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import accuracy, feeding, gpu, memory, pipeline, tax, throughput
from benchmarks.peers import PEERS, known
from consts import NETWORKS
from utils import UserError

BENCHMARKS = {
    "throughput": throughput, "memory": memory, "input": feeding, "tax": tax,
    "pipeline": pipeline, "accuracy": accuracy, "gpu": gpu,
}  # fmt: skip
# What differs from the defaults of the others.
OWN: dict[str, dict[str, object]] = {
    "memory": {"model": ["VGG16"], "batch_size": [256]}, "pipeline": {"steps": 12, "precision": "bf16"},
}  # fmt: skip
DEFAULTS = {"model": ["BasicCNN", "VGG11"], "batch_size": [64], "steps": 6, "precision": "fp32"}
ALL = ("throughput", "memory", "input")


def at_least(smallest: int) -> Callable[[str], int]:
    """A parser of whole numbers."""

    def parse(word: str) -> int:
        if not word.isascii() or not word.isdigit() or int(word) < smallest:
            raise argparse.ArgumentTypeError(f"{word!r} is not a whole number of {smallest} or more")
        return int(word)

    return parse


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="?", choices=tuple(BENCHMARKS), help="[default: the first three]")
    parser.add_argument("--model", nargs="+", choices=tuple(NETWORKS), help="[default BasicCNN VGG11; memory: VGG16]")
    parser.add_argument("--batch_size", nargs="+", type=at_least(1), help="[default 64; memory: 256]")
    parser.add_argument("--peers", nargs="+", type=known, default=list(PEERS), help="of throughput: " + "; ".join(
        f"{name}: {what}" for name, what in PEERS.items()))  # fmt: skip
    parser.add_argument("--rounds", type=at_least(2), default=5, help="turns of every peer [default 5]")
    parser.add_argument("--steps", type=at_least(1), help="steps of a turn [default 6; pipeline: 12]")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="of memory and pipeline [default fp32; bf16]")
    parser.add_argument("--num_stages", type=at_least(1), default=2, help="of pipeline")
    parser.add_argument("--data_dir", default="data/cifar10-jpeg", help="of accuracy: an image tree of CIFAR-10")
    parser.add_argument("--target", type=float, default=60.0, help="of accuracy: percent of the test images")
    parser.add_argument("--device", default="cuda", help="of gpu; on a cpu it only shows that the bits are equal")
    parser.add_argument("--out", type=Path, default=Path("experiments/benchmarks"), help="where CSV and chart go")
    return parser.parse_args()


def main() -> int:
    """Run the benchmark that was named, or all."""
    options = _parse()
    import torch

    begin = time.monotonic()
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}, "
          f"{torch.get_num_threads()} threads")  # fmt: skip
    code = 0
    for name in [options.what] if options.what else ALL:
        given = {key: value for key, value in vars(options).items() if value is not None}
        chosen = argparse.Namespace(**vars(options) | DEFAULTS | OWN.get(name, {}) | given)
        try:
            options.out.mkdir(parents=True, exist_ok=True)
            code |= BENCHMARKS[name].run(chosen)
        except UserError as error:
            print(f"python -m benchmarks: {error}", file=sys.stderr)
            return error.exit_code
        except OSError as error:
            print(f"python -m benchmarks: {error}; choose another --out", file=sys.stderr)
            return 1
    print(f"\n{time.monotonic() - begin:.0f} s; figures in {options.out}")
    return code


if __name__ == "__main__":
    sys.exit(main())
