"""Start the processes of a run on this machine with torch's elastic launcher, and report how they ended.

On several machines, or with restarts, the same command runs under ``python -m torch.distributed.run``.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from engine.parallel.world import LAUNCHED
from engine.run.signals import EXIT_CODES
from utils import EXIT_FAILURE, EXIT_USAGE, Interrupted, UserError

# Seconds that processes have to end after one has died, or to save after a signal; then they are killed.
GRACE_S = 25


class Told(UserError):
    """A process of the run failed and has reported its error."""

    is_told = True

    def __init__(self, exit_code: int) -> None:
        super().__init__("")
        self.exit_code = exit_code


def launch(program: Path, arguments: Sequence[str], count: int, num_replicas: int) -> None:
    """Run ``program`` ``count`` times with the same arguments, each as one of the processes of a run.

    Raises:
        Told: a process failed, and has reported why.
        UserError: a process was killed, or the processes cannot be started.
        Interrupted: a signal ended all of them, after they saved.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # its errors are reported below, in one line
    os.environ[LAUNCHED] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // count)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(GRACE_S))
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=count, run_id=uuid.uuid4().hex, max_restarts=0,
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", logs_specs=DefaultLogsSpecs(),
    )  # fmt: skip
    try:
        elastic_launch(config, sys.executable)(str(program), *arguments)
    except SignalException as stop:
        raise Interrupted(EXIT_CODES.get(stop.sigval, EXIT_FAILURE)) from None
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        raise _verdict(codes, count, num_replicas) from None


def _verdict(codes: dict[int, int], count: int, num_replicas: int) -> UserError:
    """The error for the exit codes of processes, by rank; a code is minus the signal's number if a signal killed it."""
    killed = {rank: -code for rank, code in codes.items() if code < 0 and -code not in EXIT_CODES}
    if killed:
        rank, number = next(iter(killed.items()))
        stage, replica = divmod(rank, num_replicas)
        who = f"stage {stage}" + (f", replica {replica}," if num_replicas > 1 else "")
        if 1 < num_replicas == count:
            who = f"replica {replica}"
        name = signal.Signals(number).name
        return UserError(
            f"the process of {who} was killed ({name}), and the run has ended; what was saved last is whole, go on "
            f"from it with --resume auto"
        )
    return Told(EXIT_USAGE if EXIT_USAGE in codes.values() else EXIT_FAILURE)
