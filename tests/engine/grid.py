"""Several processes that train one run, forked from this one so that nothing has to be imported again."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

import main

PATIENCE_S = 90


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _be(rank: int, count: int, port: int, words: list[str], output: Path, before: Callable[[int], None]) -> None:
    place = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    torch.set_num_threads(1)
    stream = output.open("w")
    os.dup2(stream.fileno(), 2)
    sys.stderr = stream
    before(rank)
    code = main.main(words)
    stream.flush()
    os._exit(code)


class Grid:
    """The processes of one run.

    Args:
        words: the command, the same for all.
        count: how many processes.
        folder: where their error output goes.
        before: called in each of them with its rank before it starts.
        world: what they believe their number to be.
    """

    def __init__(
        self,
        words: list[str],
        count: int,
        folder: Path,
        before: Callable[[int], None] = lambda rank: None,
        world: int | None = None,
        port: int | None = None,
    ) -> None:
        context, port = multiprocessing.get_context("fork"), port or free_port()
        folder.mkdir(exist_ok=True)
        self._outputs = [folder / f"{rank}.err" for rank in range(count)]
        self.processes: list[BaseProcess] = [
            context.Process(target=_be, args=(rank, world or count, port, words, output, before))
            for rank, output in enumerate(self._outputs)
        ]
        for process in self.processes:
            process.start()

    def wait(self) -> list[int | None]:
        """Their exit codes, by rank; None for one that did not end."""
        end = time.monotonic() + PATIENCE_S
        for process in self.processes:
            process.join(max(0, end - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
        return codes

    @property
    def errors(self) -> list[str]:
        """What they wrote to stderr, by rank."""
        return [path.read_text() for path in self._outputs]


def assert_refused(run, grid, words: list[str], count: int, code: int, message: str) -> None:
    """``count`` processes with these words end with one line, of the leader, and leave nothing behind."""
    started = grid(*words, count=count)
    codes = started.wait()
    assert codes[0] == code and None not in codes and 0 not in codes
    assert message in started.errors[0] and started.errors[0].count("\n") == 1
    assert not "".join(started.errors[1:])
    assert not run.folders
