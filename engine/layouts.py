"""Which layout takes a run's training steps: chosen from the settings, and built here only."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch
from loguru import logger

from datamodules.feed import Feed
from engine.loop.accumulated import Accumulated
from engine.loop.eager import Eager, Worker
from engine.loop.layout import Layout
from engine.loop.part import Part, Rules
from engine.loop.program import Program
from engine.loop.recorded import Recorded, Recording, Uncapturable
from engine.loop.recorders import CudaGraphs, Recorders
from engine.loop.selfcheck import difference
from engine.loop.steps import Steps
from engine.parallel.partition import choose_stages
from engine.parallel.processes import Processes
from engine.parallel.ranks import Ranks
from engine.parallel.stage import Stage
from engine.parallel.streams import Streams
from engine.parallel.threads import Threads
from engine.parallel.world import Alone
from engine.run.signals import StopRequest
from layers.normalisation import SharedStatistics
from methods._base import Method
from methods._local import LocalMethod
from schemas import Args
from utils import UsageError, UserError

ROUNDS = 3  # in which stages side by side are compared with the sequential run, since one may hide a race


def build_layout(
    args: Args,
    method: Method,
    feed: Feed,
    optimizer: torch.optim.Optimizer,
    *,
    stages: Sequence[range] | None = None,
    ranks: Alone | None = None,
    stop: StopRequest | None = None,
    recorders: Recorders | None = None,
    step: int = 0,
) -> Layout:
    """The layout that ``--layer_parallel`` and ``--cuda_graph`` ask for.

    Where steps cannot be recorded, or recorded ones differ from eager ones, it is the eager one, with a warning. To be
    built anew for every phase of the method, since what a recording trains is fixed.

    Args:
        args: the settings.
        method: what is trained.
        feed: the training images.
        optimizer: the run's; its state must be loaded already.
        stages: blocks of every stage of a layer-parallel layout; None: as the settings say.
        ranks: the processes of the run, where there are several.
        stop: the signals that this process got.
        recorders: makes what records steps; None: as the settings say.
        step: the run's next step.

    Raises:
        UsageError: the settings cannot be met here.
        UserError: ``--cuda_graph on`` asks for recorded steps, and they cannot be had.
    """
    ranks = ranks or Alone()
    stages = choose_stages(args.run, method, feed.batch(0, 0)) if stages is None else stages
    recorders = recorders or choose_recorders(args, feed)[0]
    statistics: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
    if args.run.sync_bn and ranks.num_replicas > 1:  # a file may have it for one process, where it has no effect
        statistics = partial(SharedStatistics, ranks.mean, ranks.num_replicas)
    rules = Rules(args.run.precision, args.optim.gradient_clip, ranks.average, statistics)
    steps = Steps(args, method, feed, ranks.replica)
    parts: list[Stage] = []
    if stages:
        assert isinstance(method, LocalMethod)
        parts = [Stage(method, blocks, optimizer, rules) for blocks in stages]
    part = Part(method, optimizer, rules)
    if isinstance(ranks, Ranks):
        return Processes(ranks, parts[ranks.stage] if parts else part, steps, optimizer, stop or StopRequest())
    if parts and args.run.layer_parallel == "threads":
        return Threads(parts, steps, args.run.async_buffer)
    if args.optim.accumulate > 1:
        return Accumulated(part, [Steps(args, method, feed, place) for place in range(args.optim.accumulate)])
    eager = Eager(Worker(part, steps))
    if recorders is None:
        return eager
    begin = time.perf_counter()
    if parts:
        record: Callable[[], Layout] = partial(Streams, parts, steps, recorders, step)
        sample, rounds = len(parts) + 2, ROUNDS
    else:
        record, sample, rounds = partial(_record, part, steps, recorders, step), 1, 1
    check = partial(
        difference, eager=eager, part=part, steps=_sample(steps, step, sample),
        exact=args.optim.deterministic or feed.device.type == "cpu", rounds=rounds,
    )  # fmt: skip
    layout, reason = _checked(record, check)
    if layout is None:
        if args.run.cuda_graph == "on":
            raise UserError(f"--cuda_graph on: {reason}")
        logger.warning(f"Steps: eager, since {reason}")
        return eager
    what = f"{len(parts)} stages side by side, one CUDA graph for each" if parts else "one CUDA graph each"
    logger.info(f"Steps: {what} (recorded and compared with eager ones in {time.perf_counter() - begin:.1f} s)")
    return layout


def _record(part: Part, steps: Steps, recorders: Recorders, step: int) -> Layout:
    return Recorded(Recording(Program(part, steps), recorders(), step))


def _sample(steps: Steps, step: int, count: int) -> range:
    """The numbers of the steps to compare with eager ones: ``count`` of one epoch, from ``step`` on if it has them."""
    begin = step // steps.per_epoch * steps.per_epoch
    end = begin + steps.per_epoch
    first = max(begin, min(step, end - count))
    return range(first, min(first + count, end))


def _checked(record: Callable[[], Layout], check: Callable[[Layout], str]) -> tuple[Layout | None, str]:
    """What ``record`` builds, if ``check`` finds nothing; or None and why not."""
    try:
        layout = record()
    except Uncapturable as error:
        return None, f"a step cannot be captured: {error}"
    try:
        reason = check(layout)
    except RuntimeError as error:
        reason = f"{error}".partition("\n")[0]
    if reason:
        layout.close()
        return None, f"recorded steps were compared with eager ones: {reason}"
    return layout, ""


def obstacle(args: Args, feed: Feed) -> str:
    """Why steps with these settings and training images cannot be captured, or an empty string."""
    if feed.device.type != "cuda":
        return "CUDA graphs need a GPU"
    if args.run.layer_parallel not in ("off", "streams"):
        return f"--layer_parallel {args.run.layer_parallel} has steps of its own"
    if not feed.placement.is_resident:
        return "the host gathers the training images, which do not fit the GPU"
    if args.run.num_replicas > 1:
        return "the replicas average their gradients between backward pass and update"
    if args.optim.accumulate > 1:
        return "a batch is computed in parts"
    if args.optim.optimizer_type == "Rprop":
        return "torch's Rprop counts steps on the host"
    return ""


def choose_recorders(args: Args, feed: Feed) -> tuple[Recorders | None, str]:
    """What records the steps as ``--cuda_graph`` asks for, or None and why nothing does.

    Raises:
        UsageError: steps must be captured, and cannot.
    """
    reason = "--cuda_graph off" if args.run.cuda_graph == "off" else obstacle(args, feed)
    if reason and args.run.layer_parallel == "streams":
        raise UsageError(f"--layer_parallel streams runs CUDA graphs side by side: {reason}; give --layer_parallel off")
    if reason and args.run.cuda_graph == "on":
        raise UsageError(f"--cuda_graph on: {reason}; give --cuda_graph off or auto")
    return (None, reason) if reason else (partial(CudaGraphs, feed.device), "")
