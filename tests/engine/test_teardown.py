"""What happens to NCCL's groups when a process is gone, shown by groups that only write down what is called."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from engine.loop.layout import Course
from engine.loop.meter import Meter, Totals
from engine.parallel import ranks, teardown
from engine.parallel.processes import Processes
from engine.parallel.ranks import PeerGone, joined_ranks, lost_connections_told
from schemas import RunArgs


class FakeGroup:
    """A group of NCCL."""

    def __init__(self, log: list[str], work: Callable[[], object] = lambda: None) -> None:
        self._log, self._work = log, work

    def abort(self) -> None:
        self._work()
        self._log.append("abort")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls, in their order; the process is in no group yet."""
    calls: list[str] = []
    for name in teardown.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(teardown, "_groups", [])
    monkeypatch.setattr(teardown, "_aborted", threading.Event())
    monkeypatch.setattr(dist, "destroy_process_group", lambda: calls.append("destroy"))

    def new_group(members: object, timeout: object, backend: str) -> FakeGroup:
        calls.append(f"{backend} {os.environ.get('TORCH_NCCL_ASYNC_ERROR_HANDLING')}")
        return FakeGroup(calls)

    monkeypatch.setattr(dist, "new_group", new_group)
    monkeypatch.setattr(ranks, "rendezvous", lambda *words, **more: iter([(None, 0, 2)]))
    monkeypatch.setattr(dist, "PrefixStore", lambda name, store: store)
    monkeypatch.setattr(dist, "init_process_group", lambda *words, **more: None)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    return calls


def settings(**words: object) -> RunArgs:
    return RunArgs(layer_parallel="processes", num_stages=2, **words)


def test_groups_of_nccl_are_made_with_a_watchdog_that_leaves_the_process_alive(log: list[str]) -> None:
    with joined_ranks(settings(num_replicas=2)):
        pass
    assert log == ["nccl 2", "nccl 2", "gloo 2", "nccl 2", "gloo 2", "destroy"]


def test_what_the_user_set_up_stays(log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
    with joined_ranks(settings()):
        pass
    assert log == ["nccl 1", "destroy"]


def test_a_lost_connection_aborts_before_anything_else_is_done(log: list[str]) -> None:
    left = contextlib.ExitStack()
    left.callback(log.append, "teardown of the run")
    with pytest.raises(PeerGone), joined_ranks(settings()), left, lost_connections_told():
        raise RuntimeError("Connection closed by peer")
    assert log == ["nccl 2", "abort", "teardown of the run", "destroy"]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_error_of_this_process_aborts_too(log: list[str], error: type[BaseException]) -> None:
    """The others may be waiting for what it will not send, and it for them."""
    with pytest.raises(error), joined_ranks(settings()):
        raise error
    assert log == ["nccl 2", "abort", "destroy"]


def test_without_nccl_nothing_is_aborted(log: list[str]) -> None:
    with pytest.raises(PeerGone), joined_ranks(settings(device="cpu")), lost_connections_told():
        raise RuntimeError("Connection closed by peer")
    assert log == ["gloo None", "destroy"]


def test_all_groups_are_aborted_at_once(log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2, timeout=10)
    monkeypatch.setattr(teardown, "LIMIT_S", 60.0)
    monkeypatch.setattr(teardown, "_groups", [FakeGroup(log, together.wait) for _ in range(2)])
    teardown.abort()
    assert log == ["abort", "abort"]


@pytest.mark.parametrize("stuck", ["abort", "destroy"])
def test_a_teardown_that_hangs_ends_the_process(
    log: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], stuck: str
) -> None:
    def end(code: int) -> None:
        log.append(f"exit {code}")
        never.set()
        raise SystemExit(code)

    never = threading.Event()
    monkeypatch.setattr(teardown, "LIMIT_S", 0.01)
    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(teardown, "_groups", [FakeGroup(log, never.wait if stuck == "abort" else lambda: None)])
    if stuck == "destroy":
        monkeypatch.setattr(dist, "destroy_process_group", never.wait)
    with pytest.raises(SystemExit):
        teardown.disconnect(failed=True)
    assert "exit 1" in log
    assert capfd.readouterr().err == (
        "main.py: error: NCCL did not end within 0.01 s of a failure; what was saved last is whole, go on from it with "
        "--resume auto\n"
    )


def test_the_host_asks_for_the_others_before_it_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read of the sums waits for ever for a kernel that waits for a process that died."""
    calls: list[str] = []

    def tell_all(value: object) -> list[object]:
        calls.append("ask")
        raise PeerGone("gone")

    monkeypatch.setattr(Meter, "read", lambda self: calls.append("read"))
    layout = Processes.__new__(Processes)
    layout._ranks = SimpleNamespace(replica=1, tell_all=tell_all)
    layout._sender = None
    with pytest.raises(PeerGone):
        layout.run(Course(range(0), Totals()))
    assert calls == ["ask"]
