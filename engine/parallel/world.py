"""Which process of a run this one is, before torch is loaded: the variables that torch's launcher sets."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

from utils import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from engine.run.signals import StopRequest
    from schemas import RunArgs

Value = TypeVar("Value")
LAUNCHED = "BEYOND_BACKPROP_LAUNCHED"  # set for processes that the command itself started; it reports their errors


class Alone:
    """A single process, with the interface of `Ranks`."""

    is_leader, stage, replica, num_replicas = True, 0, 0, 1

    def agree(self, value: Value) -> Value:
        """The leader's value."""
        return value

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Run code that may fail in one process only; an error in one is then raised in all."""
        yield

    def device_name(self, args: RunArgs) -> str:
        """``--device`` for this process."""
        return args.device

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over the replicas."""
        return values

    def average(self, optimizer: torch.optim.Optimizer) -> None:
        """Replace the gradients by their mean over the replicas."""

    def agree_to_stop(self, stop: StopRequest) -> None:
        """Let a signal that one process got count for all of them."""


def is_grid(args: RunArgs) -> bool:
    """Whether the run is trained by processes that communicate, be it a single one."""
    return args.layer_parallel == "processes" or args.num_replicas > 1


def num_ranks(args: RunArgs) -> int:
    """How many processes these settings need: a grid of stages and replicas."""
    return args.stage_count * args.num_replicas if is_grid(args) else 1


def is_leader() -> bool:
    """Whether this process is the one that writes to the terminal and to the run folder."""
    return os.environ.get("RANK", "0") == "0"


def was_launched() -> bool:
    """Whether the command itself started this process, as one of a run."""
    return LAUNCHED in os.environ


def is_restart() -> bool:
    """Whether torch's launcher has started these processes again after one of them died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def must_launch(args: RunArgs) -> bool:
    """Whether the processes of the run are still to be started.

    Raises:
        UsageError: there are other processes than the settings need.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return is_grid(args)
    there, needed = int(os.environ["WORLD_SIZE"]), num_ranks(args)
    if there == needed:
        return False
    if not is_grid(args):
        raise UsageError(
            f"{there} processes were started, but --layer_parallel is {args.layer_parallel} and --num_replicas 1; give "
            f"--num_replicas {there} or --layer_parallel processes, or start one"
        )
    if args.layer_parallel == "off":
        raise UsageError(
            f"{there} processes were started, but --num_replicas is {needed}; give --num_replicas {there}, or start "
            f"{needed}"
        )
    raise UsageError(
        f"{there} processes were started, but {args.stage_count} stages of {args.num_replicas} replicas each need "
        f"{needed}; change --num_stages, --stages or --num_replicas, or start as many"
    )
