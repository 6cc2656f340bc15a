"""Trials on the machines of a Ray cluster: an actor for each, which holds its cores and its GPU and starts its process.

Ray's core does what the sweep cannot: it finds a machine with room, shows the trial its GPU, and notices that a worker
is gone. Ray Tune does more than that, and all of it is here already: with its searchers and schedulers one sweep file
would have two studies, with other points, another way to resume and another rule of early stopping.

Every machine must see the sweep's folder, the data and this code under the same paths (a shared file system), and have
the same versions of Python and Ray. A cluster of its own takes 8 to 18 s to start and 470 MiB beside two trials (Ray
2.60 on two busy cores), so on one machine without GPUs the local engine is the better one.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from loguru import logger

from sweeps.engines import Launch, Process, start_python
from utils import EXIT_FAILURE, UsageError, UserError

REQUIREMENT = "ray>=2.50,<3"  # as the extra in pyproject.toml
_OBJECT_STORE_BYTES = 80 * 2**20  # nearly the least that Ray takes; only exit codes pass through it


class RayEngine:
    """Actors of the cluster at ``RAY_ADDRESS``, or of one that is started on this machine for the sweep.

    Args:
        num_workers: trials side by side; where the cluster has less room, Ray lets the last ones wait.

    Raises:
        UsageError: Ray is not installed.
    """

    max_losses = 3

    def __init__(self, num_workers: int) -> None:
        if importlib.util.find_spec("ray") is None:
            raise UsageError(f"--engine ray needs Ray: pip install '{REQUIREMENT}' (the extra [ray])")
        self._num_workers = num_workers

    def __enter__(self) -> RayEngine:
        import ray

        address = os.environ.get("RAY_ADDRESS")
        own: dict[str, Any] = {
            "num_cpus": max(os.cpu_count() or 1, self._num_workers), "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
        }  # fmt: skip
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning; trials have --device
        try:
            ray.init(address or "local", logging_level=logging.ERROR, log_to_driver=False, **({} if address else own))
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(f"no Ray cluster at {address or 'this machine'}: {_first_line(error)}") from None
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        # Once and for all: with another number of threads a trial would have other bits.
        self._shares = {on_gpu: share(nodes, self._num_workers, on_gpu=on_gpu) for on_gpu in (False, True)}
        self._ray, self._worker = ray, ray.remote(Worker)
        return self

    def start(self, launch: Launch) -> Process:
        """Start a trial, as soon as there is room."""
        num_cpus, num_gpus = self._shares[launch.device != "cpu"]
        actor = self._worker.options(num_cpus=num_cpus, num_gpus=num_gpus).remote()
        begun = actor.start.remote(Path.cwd(), launch.words, launch.log.absolute(), launch.defaults(num_cpus))
        return RemoteProcess(self._ray, actor, begun)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ray.shutdown()


class Worker:
    """A trial's process on the machine that Ray chose; `Process` from afar."""

    _process: subprocess.Popen[bytes]

    def start(self, folder: Path, words: Sequence[str], log: Path, defaults: Mapping[str, str]) -> int | None:
        """Start it in ``folder``. Ray has set CUDA_VISIBLE_DEVICES here, and it inherits that."""
        os.chdir(folder)
        self._process = start_python(words, log, defaults)
        return self.poll()

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()


class RemoteProcess:
    """A `Worker`'s process. Nothing here waits for it; a worker that is gone counts as killed.

    Args:
        ray: the module.
        actor: handle of the `Worker`.
        begun: what `Worker.start` will return.
    """

    def __init__(self, ray: Any, actor: Any, begun: Any) -> None:
        self._ray, self._actor, self._answer = ray, actor, begun
        self._has_begun = False
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code; None while it runs, or waits for room.

        Raises:
            UserError: Ray could not start it.
        """
        if self._code is None and self._ray.wait([self._answer], timeout=0)[0]:
            self._code = self._receive()
            if self._code is None:
                self._answer = self._actor.poll.remote()
            else:
                self._ray.kill(self._actor)  # gives its room back
        return self._code

    def _receive(self) -> int | None:
        errors = self._ray.exceptions
        try:
            code: int | None = self._ray.get(self._answer)
            self._has_begun = True
            return code
        except errors.ActorUnavailableError:  # the network; it may come back
            return None
        except errors.RayError as error:
            lost = isinstance(error, (errors.RayActorError, errors.OutOfMemoryError))
            if not lost or getattr(error, "actor_init_failed", False):
                self._code = EXIT_FAILURE
                raise UserError(f"Ray cannot start a trial: {_first_line(getattr(error, 'cause', error))}") from None
            logger.warning(f"Ray lost a worker: {_first_line(error)}")
            return -signal.SIGKILL

    def terminate(self) -> None:
        """Send SIGTERM; a trial that still waits for room never begins."""
        if self._code is None:
            if self._has_begun:
                self._actor.terminate.remote()
            else:
                self._ray.kill(self._actor)

    def kill(self) -> None:
        """Send SIGKILL."""
        if self._code is None:
            self._actor.kill.remote()


def share(nodes: Sequence[Mapping[str, float]], num_workers: int, *, on_gpu: bool) -> tuple[int, float]:
    """Cores and GPUs of each trial, so that as many as there are workers find room side by side.

    A trial has a GPU of its own while there are enough, and else an equal part of one. A trial that may take a GPU
    where the cluster has none gets cores only.

    Args:
        nodes: Ray's resources (``CPU``, ``GPU``) of every machine; a trial cannot be cut in two.
        num_workers: trials side by side.
        on_gpu: whether a trial takes a GPU.
    """
    num_gpus = sum(node.get("GPU", 0) for node in nodes) if on_gpu else 0
    per_gpu = math.ceil(num_workers / num_gpus) if num_gpus else 0
    rooms = [(node.get("CPU", 0), node.get("GPU", 0) * per_gpu if num_gpus else math.inf) for node in nodes]

    def num_places(num_cpus: int) -> float:
        return sum(min(cores // num_cpus, most) for cores, most in rooms)

    most_cores = int(max((cores for cores, _ in rooms), default=1))
    num_cpus = next((each for each in range(most_cores, 1, -1) if num_places(each) >= num_workers), 1)
    return num_cpus, math.floor(10_000 / per_gpu) / 10_000 if per_gpu else 0.0  # Ray counts in ten-thousandths


def _first_line(error: object) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
