"""What a message between two processes of this machine costs, over gloo (part of ``scaling.py``)."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from multiprocessing.connection import Connection
from typing import NamedTuple

import torch
import torch.distributed as dist

SIZES, ROUNDS = (64, 2**23), 20  # bytes: one that costs latency alone, one that costs bandwidth


class Link(NamedTuple):
    """Seconds of an empty message, and bytes per second."""

    latency_s: float
    bytes_per_s: float

    def seconds(self, num_bytes: int) -> float:
        """Of a message."""
        return self.latency_s + num_bytes / self.bytes_per_s


def _serve(rank: int, port: int, connection: Connection) -> None:
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.set_num_threads(1)
    medians = []
    for size in SIZES:
        values, times = torch.zeros(size, dtype=torch.uint8), []
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            for turn in range(2):  # there and back
                dist.send(values, 1 - rank) if turn == rank else dist.recv(values, 1 - rank)
            times.append((time.perf_counter() - begin) / 2)
        medians.append(sorted(times)[ROUNDS // 2])
    connection.send(medians)
    dist.destroy_process_group()


def measure() -> Link:
    """Send to and fro between two processes."""
    context = multiprocessing.get_context("spawn")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mine, theirs = context.Pipe()
    processes = [context.Process(target=_serve, args=(rank, port, theirs), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    small, large = mine.recv()
    for process in processes:
        process.join()
    return Link(small, (SIZES[1] - SIZES[0]) / max(large - small, 1e-9))
