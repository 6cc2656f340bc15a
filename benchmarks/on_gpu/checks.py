"""What must hold on a GPU: equal bits, no wait inside a chunk, and the memory of a step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch.nn import functional as F

from benchmarks.on_gpu.masters import MasterSGD
from benchmarks.on_gpu.runs import Run, build_method, make_feed, settings
from benchmarks.on_gpu.timing import DIFFERENCES, Row
from datamodules.base import Batch, ImageSet
from engine.devices import autocast
from engine.loop.optimizer import build_optimizer
from engine.loop.recorders import no_waiting
from methods._base import Method

METHODS, PRECISIONS = ("bp", "dgl"), ("fp32", "bf16")


def bits(
    models: Sequence[str], batch_size: int, num_steps: int, images: ImageSet, device: torch.device
) -> Iterator[Row]:
    """The graph against the eager path, and bfloat16 weights against autocast, after some steps from one start."""
    for model, name, precision in product(models, METHODS, PRECISIONS):
        args = settings(name, model, batch_size, precision=precision)
        feed = make_feed(args, images, device)
        eager, again, graph = Run(args, feed), Run(args, feed), Run(args, feed).record()
        for each in (eager, again, graph):
            each.take(num_steps)
        control = _differences(eager.state(), again.state())
        case = f"{model} {batch_size} {name} {precision}"
        note = (
            f"of {len(eager.state())} tensors, graph against eager, {num_steps} steps (eager against eager: {control})"
        )
        yield Row("bits", case, _differences(eager.state(), graph.state()), DIFFERENCES, note=note)
        if precision == "bf16":
            method = build_method(args, device)
            optimizer = MasterSGD(method, args.optim)
            Run(args, feed, method, optimizer).take(num_steps)
            theirs = dict(zip(map(id, optimizer.working), optimizer.masters, strict=True))
            found = [theirs.get(id(parameter), parameter) for parameter in method.parameters()]
            count = _differences([*eager.method.parameters()], found)
            note = f"of {len(found)} parameters, float32 masters of bf16 weights against autocast"
            yield Row("bits", case, count, "differences (prototype)", note=note)


def stages(
    model: str, batch_size: int, num_stages: int, num_steps: int, images: ImageSet, device: torch.device
) -> Iterator[Row]:
    """Stages in streams against one block after the other."""
    for precision in PRECISIONS:
        args = settings("dgl", model, batch_size, precision=precision)
        feed = make_feed(args, images, device)
        eager, lined_up = Run(args, feed), Run(args, feed).line_up(num_stages)
        for each in (eager, lined_up):
            each.take(num_steps)
        note = f"of {len(eager.state())} tensors, {num_stages} stages in streams against eager, {num_steps} steps"
        count = _differences(eager.state(), lined_up.state())
        yield Row("bits", f"{model} {batch_size} dgl {precision} streams", count, DIFFERENCES, note=note)


def _differences(some: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> int:
    return sum(not torch.equal(one, other) for one, other in zip(some, others, strict=True))


def waits(models: Sequence[str], batch_size: int, images: ImageSet, device: torch.device) -> Iterator[Row]:
    """Whether either path makes the host wait inside a chunk; a CPU has nothing to wait for."""
    for model, name in product(models, METHODS):
        args = settings(name, model, batch_size)
        feed = make_feed(args, images, device)
        for way, each in {"eager": Run(args, feed), "graph": Run(args, feed).record()}.items():
            each.take(2)
            reason = ""
            with no_waiting() if device.type == "cuda" else contextlib.nullcontext():
                try:
                    each.launch(2)
                except RuntimeError as error:
                    reason = f"{error}".partition("\n")[0]
            yield Row("waits", f"{model} {batch_size} {name} {way}", int(bool(reason)), DIFFERENCES, note=reason)


def memory(model: str, batch_size: int, images: ImageSet, device: torch.device) -> Iterator[Row]:
    """The most that a step allocates beyond weights, optimiser and batch; nothing counts it on a CPU."""
    peaks: dict[str, float] = {}
    for name, case in (("bp", "bp"), ("dgl", "dgl"), ("dgl", "dgl as a sum of losses")):
        args = settings(name, model, batch_size)
        batch, method = make_feed(args, images, device).batch(0, 0), build_method(args, device)
        optimizer = build_optimizer(args.optim, method)
        for _ in range(3):
            held = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            with autocast(device, "bf16"):
                _sum_of_losses(method, batch) if case.endswith("losses") else method.fill_grads(batch)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
        peaks[case] = (peak - held) / 2**20
    for case, peak_mib in peaks.items():
        note = f"{peak_mib / peaks['bp']:.2f} x bp" if peaks["bp"] else "not counted on a CPU"
        yield Row("memory", f"{model} {batch_size} {case}", peak_mib, "MiB", note=note)


def _sum_of_losses(method: Method, batch: Batch) -> None:
    """DGL as the textbook writes it: all graphs at once, one backward pass."""
    h_BCHW, losses = batch.x_BCHW, []
    for index in range(method.backbone.num_blocks):
        h_BCHW = method.backbone.block(index)(h_BCHW.detach())
        losses.append(F.cross_entropy(method.block_heads(index)[0](h_BCHW).float(), batch.y_B))
    torch.stack(losses).sum().backward()
