"""Peak memory of a training step, every way of computing the gradients in a process of its own."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import tables
from benchmarks.engine import CPU, build_method, settings
from benchmarks.footprint import EAGER_FREE, peak_mib
from benchmarks.workers import Worker
from datamodules.base import Batch
from engine.devices import autocast
from methods._base import Method

STEPS = 2


def _own(method: Method, batch: Batch) -> Tensor:
    """The method's own gradients; the loss of the last block."""
    loss = method.fill_grads(batch).losses[-1]
    assert loss is not None
    return loss


def _autograd(method: Method, batch: Batch) -> Tensor:
    """Plain back-propagation: one loss, one backward pass."""
    loss = F.cross_entropy(method(batch.x_BCHW).float(), batch.y_B)
    loss.backward()
    return loss.detach()


def _sum_of_losses(method: Method, batch: Batch) -> Tensor:
    """DGL as the textbook writes it: all graphs at once, one backward pass."""
    h_BCHW, losses = batch.x_BCHW, []
    for index in range(method.backbone.num_blocks):
        h_BCHW = method.backbone.block(index)(h_BCHW.detach())
        losses.append(F.cross_entropy(method.block_heads(index)[0](h_BCHW).float(), batch.y_B))
    torch.stack(losses).sum().backward()
    return losses[-1].detach()


# Name of a way: the method, its settings, and what fills the gradients.
VARIANTS: dict[str, tuple[str, dict[str, object], Callable[[Method, Batch], Tensor]]] = {
    "dgl": ("dgl", {}, _own),
    "dgl_sum_of_losses": ("dgl", {}, _sum_of_losses),
    "bp": ("bp", {}, _own),
    "bp_checkpoints": ("bp", {"checkpoint_blocks": True}, _own),
    "bp_autograd": ("bp", {}, _autograd),
    "dgl_direct_global": ("dgl", {"is_direct_global": True}, _own),
}


class Steps:
    """Training steps of a variant on random images: gradients and SGD's update."""

    def __init__(self, variant: str, model: str, batch_size: int, precision: str, device: torch.device = CPU) -> None:
        name, others, self._fill = VARIANTS[variant]
        self._precision, self._device, self.loss = precision, device, 0.0
        self._method = build_method(settings(name, model, batch_size, **others), device)
        self._optimizer = torch.optim.SGD(self._method.param_groups(), lr=0.01, momentum=0.9, fused=True)
        self._x_BCHW = torch.randn(batch_size, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
        self._y_B = torch.randint(10, (batch_size,), device=device)

    def _take(self, num_images: int, count: int) -> None:
        for _ in range(count):
            with autocast(self._device, self._precision):
                loss = self._fill(self._method, Batch(self._x_BCHW[:num_images], self._y_B[:num_images]))
            self._optimizer.step()
            self._optimizer.zero_grad()
            self.loss = loss.item()

    def measure(self) -> tuple[float, float]:
        """The peak in MiB, after a step with two images, which loads libraries and makes the state; the last loss."""
        self._take(2, 1)
        return peak_mib(lambda: self._take(len(self._y_B), STEPS), self._device), self.loss


def run(options: Namespace) -> int:
    """Print the table; 1 if the two forms of the same gradient disagree."""
    model, batch_size = options.model[0], options.batch_size[0]
    table: list[dict[str, Any]] = []
    for variant in VARIANTS:
        with Worker(Steps, variant, model, batch_size, options.precision, environment=EAGER_FREE) as worker:
            peak, loss = worker.ask("measure")
        row = {"way": variant, "model": model, "batch_size": batch_size, "peak_mib": peak, "loss": loss}
        table.append(row | {"ratio": table[0]["peak_mib"] / peak if table else 1.0})
    title = f"{model}, batch {batch_size}, {options.precision}: peak resident memory above that of the warm process"
    columns = {"way": "", "peak_mib": "MiB", "ratio": "dgl over it", "loss": "loss"}
    tables.show(title, table, columns, options.out / "memory.csv")
    return int(abs(table[0]["loss"] - table[1]["loss"]) > 1e-3)
