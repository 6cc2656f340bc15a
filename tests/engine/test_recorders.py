"""What CUDA graphs are captured with, shown by a `torch.cuda` that only writes down what is called."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.devices import free_cached_memory
from engine.loop.optimizer import build_optimizer
from engine.loop.part import Part, Rules
from engine.loop.program import Program
from engine.loop.recorded import Recording, without_trace
from engine.loop.recorders import CudaGraphs, no_waiting
from engine.loop.steps import Steps
from tests.conftest import make_method, strided_backbone
from tests.engine.test_graph import make_feed, small_args

DEVICE = torch.device("cuda:0")


class FakeStream:
    """A stream by its number; 0 is the one that is current outside."""

    count = 0

    def __init__(self, log: list[Any]) -> None:
        FakeStream.count += 1
        self.number, self._log = FakeStream.count, log

    def wait_stream(self, other: FakeStream) -> None:
        self._log.append(("wait", self.number, other.number))


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls, in their order."""
    calls: list[Any] = []
    monkeypatch.setattr(FakeStream, "count", -1)
    current = [FakeStream(calls)]

    @contextlib.contextmanager
    def stream(chosen: FakeStream) -> Iterator[None]:
        current.append(chosen)
        try:
            yield
        finally:
            current.pop()

    @contextlib.contextmanager
    def graph(captured: Any, stream: FakeStream) -> Iterator[None]:
        calls.append(("capture", captured.number, stream.number, current[-1].number))
        yield

    def new_graph() -> Any:
        number = sum(call[0] == "graph" for call in calls)
        calls.append(("graph", number))
        return SimpleNamespace(
            number=number,
            register_generator_state=lambda generator: calls.append(("register", number, generator)),
            replay=lambda: calls.append(("replay", number)),
        )

    fakes = {
        "Stream": lambda device: FakeStream(calls),
        "current_stream": lambda device=None: current[-1],
        "stream": stream,
        "graph": graph,
        "CUDAGraph": new_graph,
        "get_sync_debug_mode": lambda: 0,
        "set_sync_debug_mode": lambda mode: calls.append(("waiting", mode)),
        "synchronize": lambda device=None: calls.append(("synchronize",)),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return calls


def test_each_recording_has_a_stream_of_its_own(log: list[Any]) -> None:
    """cuBLAS keeps a workspace for each stream of a capture, and graphs side by side must not share one."""
    recorders = [CudaGraphs(DEVICE), CudaGraphs(DEVICE)]
    for recorder in recorders:
        recorder.warm_up(lambda: None, lambda: log.append(("step", torch.cuda.current_stream().number)))
        recorder.capture(lambda: log.append(("captured step", torch.cuda.current_stream().number)))
    captures = [call for call in log if call[0] == "capture"]
    assert captures == [("capture", 0, 1, 1), ("capture", 1, 2, 2)]
    assert {call[1] for call in log if call[0].endswith("step")} == {1, 2}
    assert log.index(("wait", 1, 0)) < log.index(("step", 1)) < log.index(("wait", 0, 1)) < log.index(captures[0])


def test_the_last_warm_up_may_not_wait_for_the_device(log: list[Any]) -> None:
    CudaGraphs(DEVICE).warm_up(lambda: log.append(("begin",)), lambda: log.append(("step",)))
    steps = [call for call in log if call[0] in ("begin", "step", "waiting")]
    assert steps == [*[("begin",), ("step",)] * 2, ("begin",), ("waiting", "error"), ("step",), ("waiting", 0)]


def test_a_warm_up_that_fails_is_waited_for(log: list[Any]) -> None:
    """What it has enqueued still writes to the weights, which are then restored."""

    def fails() -> None:
        raise RuntimeError("no kernel image")

    with pytest.raises(RuntimeError, match="no kernel image"):
        CudaGraphs(DEVICE).warm_up(lambda: None, fails)
    assert log[-1] == ("wait", 0, 1)
    assert torch.cuda.current_stream().number == 0


def test_generators_are_registered_before_the_capture(log: list[Any]) -> None:
    generators = [torch.Generator(), torch.Generator()]
    replay = CudaGraphs(DEVICE).capture(lambda: None, generators)
    assert [call[0] for call in log] == ["graph", "register", "register", "capture"]
    assert [call[2] for call in log if call[0] == "register"] == generators
    replay()
    assert log[-1] == ("replay", 0)


def test_a_program_registers_all_that_its_step_draws_from(log: list[Any]) -> None:
    args, method = small_args(method="dgl", dropout_prob=0.3), make_method("dgl overlap", strided_backbone(0.3)).float()
    optimizer = build_optimizer(args.optim, method)
    program = Program(Part(method, optimizer, Rules()), Steps(args, method, make_feed()))
    Recording(program, CudaGraphs(torch.device("cpu")), 0)
    registered = [call[2] for call in log if call[0] == "register"]
    used = [
        generator for index in range(3) for drop in method.backbone.dropouts(index) for generator in drop.generators
    ]
    assert len(used) == 3
    assert registered == program.generators and set(used) < set(registered)


def test_the_device_is_waited_for_before_weights_are_restored(log: list[Any], monkeypatch) -> None:
    method = make_method("bp").float()
    optimizer, copy = build_optimizer(small_args().optim, method), torch.Tensor.copy_

    def restoring(self: torch.Tensor, *given: Any, **others: Any) -> torch.Tensor:
        log.append(("copy",))
        return copy(self, *given, **others)

    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: contextlib.nullcontext())
    with contextlib.suppress(RuntimeError), without_trace(method, optimizer, DEVICE):
        monkeypatch.setattr(torch.Tensor, "copy_", restoring)
        raise RuntimeError("not permitted")
    assert log[0] == ("synchronize",) and log[1] == ("copy",)


def test_cached_memory_that_cannot_be_freed_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch 2.11 refuses after a capture that failed; then the run must still end as done."""
    from engine.trainer import Gpu

    def refuse(*given: Any) -> None:
        raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")

    monkeypatch.setattr(torch.cuda, "empty_cache", refuse)
    free_cached_memory(DEVICE)
    monkeypatch.setattr("pytorch_lightning.accelerators.cuda._clear_cuda_memory", refuse)
    Gpu().teardown()


def test_of_torchs_warnings_only_that_of_the_sync_mode_itself_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    def set_mode(mode: object) -> None:
        warnings.warn(
            "Synchronization debug mode is a prototype feature and does not yet detect all synchronizing operations "
            "(Triggered internally at Module.cpp:1.)",
            stacklevel=2,
        )
        warnings.warn("another", stacklevel=2)

    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: "before")
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: set_mode(mode) if mode == "error" else None)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with no_waiting():
            pass
    assert [str(each.message) for each in seen] == ["another"]
