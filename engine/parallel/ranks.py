"""The processes that train one run together, and how they communicate."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from datamodules.base import Batch
from engine.parallel.teardown import PATIENCE, abort, disconnect, new_group
from engine.parallel.world import Alone, Value, was_launched
from engine.run.signals import StopRequest
from schemas import RunArgs
from utils import EXIT_USAGE, UsageError, UserError


class PeerGone(UserError):
    """Another process of the run exited; it reports its own error."""

    @property
    def is_told(self) -> bool:  # type: ignore[override]
        """Whether the launcher reports it, which it does if the command itself started the processes."""
        return was_launched()


class Ranks(Alone):
    """The place of this process among those of a run: which stage of the network it trains, and which replica of it.

    Attributes:
        stage, replica: its place in the grid.
        num_stages, num_replicas: the grid's size.
        shares_gpu: whether all of them train on one GPU; NCCL connects GPUs, not two processes on one.
        data: the process group through which tensors are sent.
    """

    def __init__(self, args: RunArgs) -> None:
        rank = dist.get_rank()
        self.is_leader = rank == 0
        self.num_stages, self.num_replicas = args.stage_count, args.num_replicas
        self.stage, self.replica = divmod(rank, self.num_replicas)
        self.shares_gpu = args.device not in ("auto", "cpu", "cuda")
        self._has_gpus = args.device != "cpu" and torch.cuda.is_available()
        self._connect()

    def device_name(self, args: RunArgs) -> str:
        """``--device`` for this process: on every machine each takes a GPU of its own, unless one is named.

        Raises:
            UsageError: there are fewer than processes.
        """
        if args.device not in ("auto", "cuda") or (args.device == "auto" and not torch.cuda.is_available()):
            return args.device
        index, count = int(os.environ.get("LOCAL_RANK", os.environ["RANK"])), torch.cuda.device_count()
        if 0 < count <= index:
            raise UsageError(
                f"--device {args.device}: every process of the run takes a GPU of its own, and this machine has "
                f"{count}; give --device cuda:0, which all share, or start fewer"
            )
        return f"cuda:{index}"

    def _connect(self) -> None:
        """Create the process groups."""
        backend = "nccl" if self._has_gpus and not self.shares_gpu else "gloo"
        self.data = new_group(None, backend)
        for stage in range(self.num_stages if self.num_replicas > 1 else 0):
            members = list(range(stage * self.num_replicas, (stage + 1) * self.num_replicas))
            groups = [new_group(members, name) for name in (backend, "gloo")]
            if stage == self.stage:
                self._siblings, self._siblings_control = groups

    def rank_of(self, stage: int) -> int:
        """The process that trains this replica's part of ``stage``."""
        return stage * self.num_replicas + self.replica

    def agree(self, value: Value) -> Value:
        """The leader's value.

        Raises:
            PeerGone: another process ended.
        """
        box = [value]
        with lost_connections_told():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def tell_all(self, value: Value) -> list[Value]:
        """Gather the values of all processes, by rank.

        Raises:
            PeerGone: another process ended.
        """
        said: list[Any] = [None] * dist.get_world_size()
        with lost_connections_told():
            dist.all_gather_object(said, value)
        return said

    def tell_leader(self, value: Value) -> list[Value] | None:
        """Gather the values of all processes on the leader, by rank; None elsewhere.

        Raises:
            PeerGone: another process ended.
        """
        said: list[Any] | None = [None] * dist.get_world_size() if self.is_leader else None
        with lost_connections_told():
            dist.gather_object(value, said, dst=0)
        return said

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """As `Alone.together`.

        Raises:
            UserError: what failed, with the process named where the others did not fail.
        """
        problem: tuple[str, int] | None = None
        try:
            yield
        except UserError as error:
            problem = (str(error), error.exit_code)
        said = self.tell_all(problem)
        found = first_set(said)
        if found is not None:
            where = "" if all(said) else f"process {said.index(found)}: "
            kind = UsageError if found[1] == EXIT_USAGE else UserError
            raise kind(f"{where}{found[0]}")

    def agree_to_stop(self, stop: StopRequest) -> None:
        """Let a signal that one process got count for all of them."""
        stop.exit_code = first_set(self.tell_all(stop.exit_code))

    def share_of(self, batch: Batch) -> Batch:
        """This replica's images of a batch."""
        return batch.shared(self.replica, self.num_replicas)

    def any_sibling(self, value: bool) -> bool:
        """Whether it is true for any replica of this stage."""
        if self.num_replicas == 1:
            return value
        flag_1 = torch.tensor([int(value)])
        with lost_connections_told():
            dist.all_reduce(flag_1, group=self._siblings_control)
        return bool(flag_1)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over the replicas, each of which must ask for it.

        Raises:
            PeerGone: another process ended.
        """
        total = values.detach().clone(memory_format=torch.contiguous_format)
        with lost_connections_told():
            dist.all_reduce(total, group=self._siblings)
        return total / self.num_replicas

    def average(self, optimizer: torch.optim.Optimizer) -> None:
        """Replace the gradients of ``optimizer``'s parameters by their mean over the replicas, group by group."""
        if self.num_replicas == 1:
            return
        under_way: list[tuple[list[Tensor], Tensor, dist.Work]] = []
        with lost_connections_told():
            for group in optimizer.param_groups:
                grads = [parameter.grad for parameter in group["params"] if parameter.grad is not None]
                if not grads:
                    continue
                flat_N = torch.cat([grad.flatten() for grad in grads])
                under_way.append((grads, flat_N, dist.all_reduce(flat_N, group=self._siblings, async_op=True)))
            for grads, flat_N, work in under_way:
                work.wait()
                flat_N /= self.num_replicas
                for grad, mean_N in zip(grads, flat_N.split([grad.numel() for grad in grads]), strict=True):
                    grad.copy_(mean_N.view(grad.shape))


def first_set(values: Sequence[Value | None]) -> Value | None:
    """The first that is not None."""
    return next((value for value in values if value is not None), None)


@contextlib.contextmanager
def lost_connections_told() -> Iterator[None]:
    """Replace the many errors of gloo and NCCL for a lost connection by one line.

    Raises:
        PeerGone: in place of a RuntimeError inside the block.
    """
    try:
        yield
    except RuntimeError as error:
        abort()
        raise PeerGone(
            "lost the connection to another process of this run, which has ended; what was saved last is whole, go on "
            "from it with --resume auto"
        ) from error


@contextlib.contextmanager
def joined_ranks(args: RunArgs) -> Iterator[Ranks]:
    """Connect to the other processes of the run, and disconnect at the end.

    Raises:
        UserError: they cannot be reached.
    """
    try:
        # A launcher that restarts the processes keeps its store, with the addresses of those that died: gloo would wait
        # for them, so every start has keys of its own.
        store, rank, count = next(rendezvous("env://", timeout=PATIENCE))
        store = dist.PrefixStore(f"start_{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        reason = f"{error}".partition("\n")[0].strip()
        raise UserError(f"the processes cannot meet at {where}: {reason}") from None
    try:
        yield Ranks(args)
    except BaseException:
        disconnect(failed=True)
        raise
    disconnect(failed=False)
