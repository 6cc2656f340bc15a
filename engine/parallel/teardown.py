"""How the processes of a run come apart: in good order, or within seconds where one of them is gone.

A kernel of NCCL that waits for a process that died never ends, and all that follows on that GPU waits with it: copies,
freed memory, `torch.distributed.destroy_process_group`. The host sees the loss in gloo, which connects all processes
too. Then the communicators are aborted before anything else happens.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import torch.distributed as dist

from consts import PROGRAM
from utils import EXIT_FAILURE

# No wait lasts for ever: a process that dies closes its connections, which ends every wait for it.
PATIENCE = timedelta(days=7)
LIMIT_S = 5.0  # for each of two steps, so that 10 s pass at most
SETTINGS = {
    # Where a group's watchdog sees an error of NCCL it only aborts the group. By default it kills the process instead.
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "2",
    # It waits four times as long before, by default a minute, for a dump that nobody reads.
    "TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC": "500",
}
_groups: list[dist.ProcessGroup] = []  # NCCL's, of this process
_aborted = threading.Event()


def new_group(members: list[int] | None, backend: str) -> dist.ProcessGroup:
    """Create a process group; every process of the run must create all of them, in the same order."""
    is_nccl = backend == "nccl"
    for name, value in SETTINGS.items() if is_nccl else ():
        os.environ.setdefault(name, value)
    group = dist.new_group(members, timeout=PATIENCE, backend=backend)
    if is_nccl and group is not dist.GroupMember.NON_GROUP_MEMBER:
        _groups.append(group)  # type: ignore[arg-type]
    return group  # type: ignore[return-value]


def abort() -> None:
    """End all kernels that wait for another process; gloo's groups have none.

    All groups at once: an abort may wait for a kernel of another group (pytorch#119797).
    """
    if not _aborted.is_set():
        _aborted.set()
        _within_limit(*(group.abort for group in _groups))


def disconnect(*, failed: bool) -> None:
    """Leave all groups; after a failure without what is under way, since the others may have left already."""
    if failed and _groups:
        abort()
        _within_limit(dist.destroy_process_group)
    else:
        dist.destroy_process_group()
    _groups.clear()
    _aborted.clear()


def _within_limit(*works: Callable[[], None]) -> None:
    """Do these side by side, and end the process where that takes longer than `LIMIT_S`."""

    def attempt(work: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the error that counts is the one that led here
            work()

    threads = [threading.Thread(target=attempt, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    end = time.monotonic() + LIMIT_S
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        said = f"NCCL did not end within {LIMIT_S:g} s of a failure; what was saved last is whole, go on from it with"
        os.write(2, f"{PROGRAM}: error: {said} --resume auto\n".encode())
        os._exit(EXIT_FAILURE)
