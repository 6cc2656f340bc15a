"""A process for each peer, so that none inherits what another has set up."""

from __future__ import annotations

import multiprocessing
import traceback
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from benchmarks.peers import Batches, Setting

NUM_CHECKED = 20
_CONTEXT = multiprocessing.get_context("spawn")  # as a user's command starts


def check_batches(setting: Setting) -> Batches:
    """The batches that all peers are compared on."""
    import torch

    from benchmarks.peers._common import MEAN, STD, images

    chosen = images(setting.batch_size * NUM_CHECKED)
    x_PCHW = chosen.images_PHWC.permute(0, 3, 1, 2).float() / 255
    x_PCHW = (x_PCHW - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    sizes = setting.batch_size
    return list(zip(x_PCHW.contiguous().split(sizes), chosen.labels_P.split(sizes), strict=True))


def _serve(connection: Connection, name: str) -> None:
    """In the child: do what is asked for until ``end``."""
    try:
        from loguru import logger

        from benchmarks import calibrate, peers

        logger.remove()  # the tables are the only thing to read
        connection.send(None)
        while (order := connection.recv()) != "end":
            if isinstance(order, Setting):
                setting, peer = order, peers.load(name, order)
                connection.send(None)
            elif order == "calibrate":
                connection.send(calibrate.measure())
            else:
                connection.send(peer.train() if order == "turn" else peer.losses(check_batches(setting)))
    except (EOFError, KeyboardInterrupt):
        pass
    except Exception:
        connection.send(RuntimeError(traceback.format_exc(limit=-3)))


class Worker:
    """The process of one peer; it starts at once, and the first question waits for it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._connection, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs, name))
        self._process.start()
        theirs.close()
        self._is_up = False

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.is_alive() and error is None:
            self._connection.send("end")
        else:
            self._process.terminate()
        self._process.join()

    def _receive(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError:
            raise RuntimeError(f"the process of {self.name} ended") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ask(self, order: Setting | str) -> Any:
        """Let the peer work: a setting builds it anew; ``losses`` and ``turn`` are of `Peer`; ``calibrate`` has none.

        Raises:
            RuntimeError: with the end of its traceback.
        """
        if not self._is_up:
            self._receive()
        self._is_up = True
        self._connection.send(order)
        return self._receive()
