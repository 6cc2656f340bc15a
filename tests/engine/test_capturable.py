"""What a CUDA graph cannot hold is found on tensors that have no values, in the recorded step of every rule."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from datamodules.base import Batch
from engine.loop.capturable import OnlyCapturable
from engine.loop.meter import Totals
from engine.loop.optimizer import build_optimizer
from engine.loop.part import Part, Rules
from engine.loop.program import Program
from engine.loop.steps import Steps
from methods.bp import BackPropagation
from tests.conftest import CASES, make_method
from tests.engine.test_graph import make_feed, small_args

META = torch.device("meta")


class WithoutFused(TorchDispatchMode):
    """Leaves out the fused optimisers, which have no kernel for meta tensors and give no result."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return (
            None if func.overloadpacket._qualified_op_name.startswith("aten::_fused_") else func(*args, **kwargs or {})
        )


@pytest.fixture
def meta(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Meta tensors stand in for those of a GPU."""
    generator, autocast = torch.Generator, torch.autocast
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": generator("cpu"))  # there is none for meta tensors
    monkeypatch.setattr(
        torch, "autocast", lambda kind, *a, **k: contextlib.nullcontext() if kind == "meta" else autocast(kind, *a, **k)
    )
    torch_optimizer = importlib.import_module("torch.optim.optimizer")
    monkeypatch.setattr(torch_optimizer, "_get_fused_kernels_supported_devices", lambda: ["meta", "cuda"])
    monkeypatch.setattr("engine.loop.optimizer.rate_dtype", lambda device: torch.float32)  # as on a GPU
    with WithoutFused():
        yield


def take_on_meta(case: str, optimizer_type: str = "SGD", dropout: float = 0.0) -> None:
    """A step, as it would be captured."""
    args, method = small_args(optimizer_type=optimizer_type), make_method(case).float().to(META)
    feed = make_feed("meta", two_views=method.two_views)
    optimizer = build_optimizer(args.optim, method)
    program = Program(Part(method, optimizer, Rules(gradient_clip=0.5)), Steps(args, method, feed))
    program.begin(0, Totals())
    program()  # creates what is created lazily
    program.seed(1)
    with OnlyCapturable(META):
        program()


@pytest.mark.parametrize("optimizer_type", ["SGD", "Adam"])
@pytest.mark.parametrize("case", CASES)
def test_a_graph_can_hold_the_step(meta, case: str, optimizer_type: str) -> None:
    take_on_meta(case, optimizer_type)


def test_a_graph_can_hold_a_step_of_signs(meta) -> None:
    take_on_meta("dgl", "SignSGD")


FAULTS: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "item": (lambda x: x.sum().item(), "waits for a value"),
    "if": (lambda x: bool(x.sum() > 0), "waits for a value"),
    "nonzero": (lambda x: x.nonzero(), "size depends on values"),
    "unique": (lambda x: x.unique(), "size depends on values"),
    "masked_select": (lambda x: x.masked_select(x > 0), "size depends on values"),
    "boolean index": (lambda x: x[x > 0], "size depends on values"),
    "boolean place": (lambda x: x.index_put((x > 0,), x.sum()), "size depends on values"),
    "repeat": (lambda x: x.repeat_interleave(x[:, 0, 0, 0].long(), 0), "size depends on values"),
    "number": (lambda x: x + torch.tensor(2.0), "number of the host"),
    "tensor of the host": (lambda x: x * torch.ones(1), "uses tensors on cpu and meta"),
    "copy to the host": (lambda x: x.cpu(), "uses tensors on cpu and meta"),
    "copy from the host": (lambda x: torch.ones(3).to(x.device), "uses tensors on cpu and meta"),
    "created on the host": (lambda x: x.new_zeros(3, device="cpu"), "uses tensors on cpu and meta"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_no_graph_can_hold_is_named(meta, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    fault, message = FAULTS[name]
    fill = BackPropagation.fill_grads
    is_on: list[bool] = []

    def faulty(self: BackPropagation, batch: Batch) -> Any:
        if is_on:  # most faults fail on meta tensors by themselves
            fault(batch.x_BCHW)
        is_on.append(True)
        return fill(self, batch)

    monkeypatch.setattr(BackPropagation, "fill_grads", faulty)
    with pytest.raises(RuntimeError, match=message):
        take_on_meta("bp")


def test_torch_may_ask_a_tensor_without_values_for_its_shape() -> None:
    """As it does where a forward derivative is zero."""
    x = torch.arange(6.0)
    with OnlyCapturable(x.device):
        x + 1, x.to("meta") * 2


def test_what_a_graph_can_hold_passes() -> None:
    x = torch.arange(6.0)
    with OnlyCapturable(x.device):
        torch.full((2,), 3.0), x * 2, x.index_select(0, torch.arange(3)), x.masked_fill(x > 1, 0)
        x[torch.arange(2)], x.repeat_interleave(torch.ones(6, dtype=torch.int64), output_size=6)
        torch.rand(3, generator=torch.Generator())
