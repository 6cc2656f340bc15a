"""One way to lay the blocks out, in processes of its own: in turn, in threads, or a process for each stage."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, cast

import torch

from benchmarks.steps import CPU, build_method
from datamodules.base import Batch
from datamodules.feed import Feed
from engine.devices import autocast, keep_freed_memory
from engine.layouts import build_layout
from engine.loop.layout import Course
from engine.loop.optimizer import update
from engine.parallel.ranks import joined_ranks
from methods._local import LocalMethod
from schemas import build_args

_CONTEXT = multiprocessing.get_context("spawn")  # as a user's command starts


@dataclass(frozen=True)
class Work:
    """What is trained, the same for all: DGL on random images.

    Attributes:
        model: the network.
        batch_size: images per step.
        precision: ``fp32`` or ``bf16``.
        num_steps: steps of a turn; filling and draining the pipeline is part of it.
    """

    model: str
    batch_size: int
    precision: str
    num_steps: int

    def method(self) -> LocalMethod:
        """The network with its rule, always with the same weights."""
        method = build_method("dgl", {}, self.model)
        assert isinstance(method, LocalMethod)
        return method

    def batches(self) -> list[Batch]:
        """The batches of a turn."""
        torch.manual_seed(1)
        size = self.batch_size
        return [
            Batch(torch.randn(size, 3, 32, 32).to(memory_format=torch.channels_last), torch.randint(10, (size,)))
            for _ in range(self.num_steps)
        ]


@dataclass(frozen=True)
class Way:
    """How.

    Attributes:
        kind: ``turn``, ``threads`` or ``processes``.
        stages: the blocks of every stage.
        num_threads: inside an operation, of each process.
    """

    kind: str
    stages: tuple[range, ...]
    num_threads: int


def _optimizer(method: LocalMethod) -> torch.optim.Optimizer:
    return torch.optim.SGD(method.param_groups(), lr=0.01, momentum=0.9, fused=True)


def _update(optimizer: torch.optim.Optimizer, step: int) -> None:
    update(optimizer, 0.01, 0.0)


def _in_turn(work: Work, method: LocalMethod) -> Callable[[], None]:
    optimizer, batches = _optimizer(method), work.batches()

    def turn() -> None:
        for batch in batches:
            with autocast(CPU, work.precision):
                method.fill_grads(batch)
            _update(optimizer, 0)

    return turn


class GivenFeed:
    """A feed of batches that are known."""

    device = CPU

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches, self.num_steps = batches, len(batches)

    def batch(self, epoch: int, step: int) -> Batch:
        """That of a step, the same in every epoch."""
        return self.batches[step]


def _laid_out(work: Work, method: LocalMethod, way: Way, held: contextlib.ExitStack) -> Callable[[], None]:
    rate = {"learning_rate": 0.01, "lr_schedule": "constant", "precision": work.precision, "epochs": 1}
    args = build_args({"dgl": True, "layer_parallel": way.kind, "num_stages": len(way.stages), "device": "cpu"} | rate)
    ranks = held.enter_context(joined_ranks(args.run)) if way.kind == "processes" else None
    feed = cast(Feed, GivenFeed(work.batches()))
    layout = build_layout(args, method, feed, _optimizer(method), stages=way.stages, ranks=ranks)
    held.callback(layout.close)
    held.callback(layout.collect)

    def turn() -> None:
        layout.run(Course(range(work.num_steps)))

    return turn


def _serve(connection: Connection, work: Work, way: Way, rank: int, port: int) -> None:
    """In a child: take turns until told to end, then send the state."""
    count = len(way.stages) if way.kind == "processes" else 1
    place = {"RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    keep_freed_memory()
    torch.set_num_threads(way.num_threads)
    method = work.method()
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        with contextlib.ExitStack() as held:
            turn = _in_turn(work, method) if way.kind == "turn" else _laid_out(work, method, way, held)
            connection.send(None)
            while connection.recv():
                begin = time.perf_counter()
                turn()
                connection.send(time.perf_counter() - begin)
        stream = io.BytesIO()
        torch.save(method.state_dict(), stream)
        connection.send_bytes(stream.getvalue())


class Runner:
    """The processes of one way; they start at once, and the first turn waits for them."""

    def __init__(self, work: Work, way: Way) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._ends: list[Connection] = []
        self._processes = []
        for rank in range(len(way.stages) if way.kind == "processes" else 1):
            mine, theirs = _CONTEXT.Pipe()
            process = _CONTEXT.Process(target=_serve, args=(theirs, work, way, rank, port), daemon=True)
            process.start()
            theirs.close()
            self._ends.append(mine)
            self._processes.append(process)

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for end in self._ends:
            end.close()
        for process in self._processes:
            process.terminate()
            process.join()

    def wait(self) -> None:
        """Until the processes are ready."""
        for end in self._ends:
            end.recv()

    def turn(self) -> float:
        """Take a turn; seconds of the slowest process."""
        for end in self._ends:
            end.send(True)
        return max(end.recv() for end in self._ends)

    def state(self) -> dict[str, Any]:
        """End, and give what the network has become."""
        for end in self._ends:
            end.send(False)
        states = [end.recv_bytes() for end in self._ends]
        loaded: dict[str, Any] = torch.load(io.BytesIO(states[0]), weights_only=True)
        return loaded
