"""Where the time of a training step goes: ``python profile_step.py [MODEL METHOD]``.

Every operation is timed where torch dispatches it (torch's own profiler allocates so much that the step slows down).
Milliseconds a step over ten steps; the share is of the operations' sum.
"""

from __future__ import annotations

import collections
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from loguru import logger
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.peers import Setting, load

STEPS, SHOWN = 10, 14


class Timer(TorchDispatchMode):
    """Adds up the seconds of every operation; convolutions by their shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: collections.defaultdict[str, float] = collections.defaultdict(float)
        self.calls: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        begin = time.perf_counter()
        result = function(*args, **(kwargs or {}))
        seconds = time.perf_counter() - begin
        name = str(function).removeprefix("aten.").removesuffix(".default")
        if name.startswith("convolution"):
            name += " " + " ".join("x".join(map(str, arg.shape)) for arg in args if isinstance(arg, Tensor))
        self.seconds[name] += seconds
        self.calls[name] += 1
        return result


def main(model: str, method: str) -> None:
    """Print the table."""
    logger.remove()
    own = load(method, Setting(model, 64, STEPS))
    own.train()
    own.train()
    with Timer() as timer:
        own.train()
    total = sum(timer.seconds.values())
    print(f"\n{model}, {method}, batch 64: {1e3 * total / STEPS:.1f} ms in operations a step")
    for name, seconds in sorted(timer.seconds.items(), key=lambda item: -item[1])[:SHOWN]:
        print(
            f"{1e3 * seconds / STEPS:7.2f} ms {100 * seconds / total:5.1f} %  {timer.calls[name] // STEPS:4d} x  {name}"
        )


if __name__ == "__main__":
    pairs = [tuple(sys.argv[1:3])] if len(sys.argv) > 2 else [("BasicCNN", "bp"), ("BasicCNN", "dgl"), ("VGG11", "dgl")]
    for model, method in pairs:
        main(model, method)
