"""Weights kept in bfloat16, with float32 copies in the optimiser, against autocast: ``python .../masters.py [DEVICE]``.

A prototype. Images per second of recorded steps (CUDA graphs on a GPU, the default), in turns, and how many parameters
differ after them; on a CPU it only shows that it works.
"""

from __future__ import annotations

import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

import torch
from torch import Tensor, nn

from benchmarks.engine import Run, build_method, make_feed, random_images, settings
from benchmarks.workers import in_turns, seconds
from methods._base import Method
from schemas import OptimArgs


class MasterSGD(torch.optim.SGD):
    """SGD on float32 copies of the weights of convolutions and linear layers, which become bfloat16 in place.

    Under autocast such weights need no cast in any step; gradients are cast up, and weights down, once and all
    together. Clipping would see old gradients.
    """

    def __init__(self, method: Method, args: OptimArgs) -> None:
        layers = [part for part in method.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
        trained = [parameter for layer in layers for parameter in layer.parameters() if parameter.requires_grad]
        self.working: list[Tensor] = [*trained]
        self.masters: list[Tensor] = [nn.Parameter(parameter.detach().clone()) for parameter in trained]
        master_of = dict(zip(map(id, self.working), self.masters, strict=True))
        groups = [
            group | {"params": [master_of.get(id(parameter), parameter) for parameter in group["params"]]}
            for group in method.param_groups()
        ]
        for parameter, master in zip(self.working, self.masters, strict=True):
            parameter.data = parameter.data.bfloat16()
            master.grad = torch.zeros_like(master)
        super().__init__(
            groups, lr=args.learning_rate, momentum=args.momentum, nesterov=args.nesterov,
            weight_decay=args.weight_decay, fused=True,
        )  # fmt: skip

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Gradients up, a step on the masters, weights down."""
        torch._foreach_copy_(_gradients(self.masters), _gradients(self.working))
        super().step(closure)
        torch._foreach_copy_(self.working, self.masters)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients, but for the masters' tensors, which the next step overwrites."""
        kept = _gradients(self.masters)
        super().zero_grad(set_to_none)
        for parameter in self.working:
            parameter.grad = None
        for master, gradient in zip(self.masters, kept, strict=True):
            master.grad = gradient


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def main(device: torch.device) -> None:
    """Print a line for every network, batch size and method."""
    is_gpu = device.type == "cuda"
    steps, rounds = (50, 7) if is_gpu else (2, 2)
    images = random_images(50_000 if is_gpu else 16)
    cases = [(model, size) for model in ("BasicCNN", "VGG16") for size in (64, 512)] if is_gpu else [("BasicCNN", 4)]
    for model, batch_size in cases:
        for name in ("bp", "dgl"):
            args = settings(name, model, batch_size, precision="bf16")
            feed, method = make_feed(args, images, device), build_method(args, device)
            optimizer = MasterSGD(method, args.optim)
            prototype, autocast = Run(args, feed, method, optimizer, way="recorded"), Run(args, feed, way="recorded")
            works = {"prototype": prototype, "autocast": autocast}
            measures = {key: partial(seconds, partial(run.take, steps), device) for key, run in works.items()}
            times = in_turns(measures, range(rounds))
            master_of = dict(zip(map(id, optimizer.working), optimizer.masters, strict=True))
            pairs = zip(method.parameters(), autocast.method.parameters(), strict=True)
            differ = sum(not torch.equal(master_of.get(id(one), one), other) for one, other in pairs)
            rates = {key: steps * batch_size / statistics.median(taken) for key, taken in times.items()}
            print(f"{model} {batch_size} {name}: {rates['prototype']:.0f} images/s, {rates['autocast']:.0f} under "
                  f"autocast; {differ} parameters differ")  # fmt: skip


if __name__ == "__main__":
    main(torch.device(sys.argv[1] if len(sys.argv) > 1 else "cuda"))
