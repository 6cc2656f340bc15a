"""Layer-parallel training against one block after the other: threads and processes, with the bits compared."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import time
from argparse import Namespace
from typing import NamedTuple

import numpy
import torch

from benchmarks import tables
from benchmarks.engine import Run, build_method, cut, make_feed, random_images, settings
from benchmarks.workers import Worker, in_turns
from engine.devices import keep_freed_memory
from schemas import Args


def work(model: str, batch_size: int, precision: str) -> Args:
    """What is trained: DGL on random images that are not augmented."""
    return settings(
        "dgl", model, batch_size, precision=precision, learning_rate=0.01, lr_schedule="constant", random_crop=False,
        random_horizontal_flip=False,
    )  # fmt: skip


class Way(NamedTuple):
    """How it is trained: as `Run` takes it, and the threads inside an operation of each process."""

    kind: str
    stages: tuple[range, ...]
    num_threads: int


class Place:
    """What one process trains: all blocks, or one stage of them."""

    def __init__(self, args: Args, num_steps: int, way: Way, rank: int, port: int) -> None:
        count = len(way.stages) if way.kind == "processes" else 1
        place = {"RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in place.items()})
        keep_freed_memory()
        torch.set_num_threads(way.num_threads)
        self._num_steps, feed = num_steps, make_feed(args, random_images(args.optim.batch_size * num_steps))
        self._run = Run(args, feed, way=way.kind, stages=way.stages)

    def turn(self) -> float:
        """Take the steps of a turn; the seconds that they took, filling and draining the pipeline included."""
        begin = time.perf_counter()
        self._run.take(self._num_steps)
        return time.perf_counter() - begin

    def finish(self) -> list[numpy.ndarray]:
        """End; on the first process, what all tensors of the network have become."""
        self._run.close()
        return [value.numpy() for value in self._run.method.state_dict().values()]


class Runner(contextlib.ExitStack):
    """The processes of one way; they start at once, and the first turn waits for them."""

    def __init__(self, args: Args, num_steps: int, way: Way) -> None:
        super().__init__()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        ranks = range(len(way.stages) if way.kind == "processes" else 1)
        self._workers = [self.enter_context(Worker(Place, args, num_steps, way, rank, port)) for rank in ranks]

    def turn(self) -> float:
        """Take a turn; seconds of the slowest process."""
        return max(future.result() for future in [worker.start("turn") for worker in self._workers])

    def state(self) -> list[numpy.ndarray]:
        """End, and give what all tensors of the network have become."""
        states: list[list[numpy.ndarray]] = [
            future.result() for future in [worker.start("finish") for worker in self._workers]
        ]
        return states[0]


def choose_ways(args: Args, num_stages: int, threads: int) -> dict[str, Way]:
    """What is compared, by name; the first is what the others are measured by.

    Raises:
        UsageError: there are fewer blocks than stages.
    """
    keep_freed_memory()
    method = build_method(args)
    share = max(1, threads // num_stages)
    torch.set_num_threads(share)
    stages = cut(args, method, make_feed(args, random_images(args.optim.batch_size)), num_stages)
    torch.set_num_threads(threads)
    everything = (range(method.backbone.num_blocks),)
    return {
        f"in turn, {threads} threads": Way("eager", everything, threads),
        f"in turn, {share} of them": Way("eager", everything, share),
        f"{num_stages} stages in threads": Way("threads", stages, threads),
        f"{num_stages} stages in processes": Way("processes", stages, share),
        "one stage, as a process": Way("processes", everything, threads),
    }


def run(options: Namespace) -> int:
    """Print a table for every network and batch size; 1 if the bits differ."""
    sizes = [(model, size) for model in options.model for size in options.batch_size]
    return max(compare(work(*size, options.precision), options) for size in sizes)


def compare(args: Args, options: Namespace) -> int:
    """Print one table: images per second, and the rounds' ratios to the first way; 1 if the bits differ."""
    print(f"\n{args.model.model}, batch {args.optim.batch_size}, {args.run.precision}")
    ways = choose_ways(args, options.num_stages, torch.get_num_threads())
    with contextlib.ExitStack() as held:
        runners = {name: held.enter_context(Runner(args, options.steps, way)) for name, way in ways.items()}
        seconds = in_turns({name: runner.turn for name, runner in runners.items()}, range(options.rounds))
        states = {name: runner.state() for name, runner in runners.items()}
    num_images = options.steps * args.optim.batch_size
    rows = tables.rate_rows("way", {name: [num_images / taken for taken in times] for name, times in seconds.items()})
    reference = seconds[rows[0]["way"]]
    for row in rows:
        ratios = sorted(first / own for first, own in zip(reference, seconds[row["way"]], strict=True))
        row |= {"ratio": statistics.median(ratios), "lowest": ratios[0], "highest": ratios[-1]}
    columns = {"way": "", **tables.RATES, "lowest": "lowest", "highest": "highest"}
    title = "images per second; median of the rounds' ratios to the first, and their range"
    tables.show(title, rows, columns, options.out / "pipeline.csv")
    names = list(ways)
    pairs = [(names[0], names[4]), (names[1], names[2]), (names[1], names[3])]  # as many threads in an operation
    differ = [
        f"{one} and {other}" for one, other in pairs if not all(map(numpy.array_equal, states[one], states[other]))
    ]
    print(f"OTHER BITS: {'; '.join(differ)}" if differ else "the same bits wherever an operation has as many threads")
    return int(bool(differ))
