"""Which layout takes a run's training steps: chosen from the settings, and built here only."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from loguru import logger

from datamodules.feed import Feed
from engine.loop.eager import Eager, Worker
from engine.loop.layout import Layout
from engine.loop.part import Part, Rules
from engine.loop.program import Program
from engine.loop.recorded import Recorded, Recording, Uncapturable
from engine.loop.recorders import CudaGraphs, Recorder
from engine.loop.steps import Steps
from engine.parallel.partition import choose_stages
from engine.parallel.processes import Processes
from engine.parallel.ranks import Ranks
from engine.parallel.stage import Stage
from engine.parallel.streams import Streams
from engine.parallel.threads import Threads
from engine.parallel.world import Alone
from engine.run.signals import StopRequest
from methods._base import Method
from methods._local import LocalMethod
from schemas import Args
from utils import UsageError, UserError


def build_layout(
    args: Args,
    method: Method,
    feed: Feed,
    optimizer: torch.optim.Optimizer,
    *,
    stages: Sequence[range] | None = None,
    ranks: Alone | None = None,
    stop: StopRequest | None = None,
    recorder: Recorder | None = None,
    step: int = 0,
) -> Layout:
    """The layout that ``--layer_parallel`` and ``--cuda_graph`` ask for; where no step can be captured, the eager one.

    To be built anew for every phase of the method, since what a recording trains is fixed.

    Args:
        args: the settings.
        method: what is trained.
        feed: the training images.
        optimizer: the run's; its state must be loaded already.
        stages: blocks of every stage of a layer-parallel layout; None: as the settings say.
        ranks: the processes of the run, where there are several.
        stop: the signals that this process got.
        recorder: records steps; None: as the settings say.
        step: the run's next step.

    Raises:
        UsageError: the settings cannot be met here.
        UserError: a capture fails, and the settings ask for it.
    """
    ranks = ranks or Alone()
    stages = choose_stages(args.run, method, feed.batch(0, 0)) if stages is None else stages
    recorder = recorder or choose_recorder(args, feed)[0]
    rules = Rules(args.run.precision, args.optim.gradient_clip, ranks.average)
    steps = Steps(args, method, feed, ranks.replica)
    if not stages:
        part = Part(method, optimizer, rules)
        recorded = None if recorder is None else _record(part, steps, recorder, step, must=args.run.cuda_graph == "on")
        return recorded or Eager(Worker(part, steps))
    assert isinstance(method, LocalMethod)
    parts = [Stage(method, blocks, optimizer, rules) for blocks in stages]
    if isinstance(ranks, Ranks):
        return Processes(ranks, parts[ranks.stage], steps, optimizer, stop or StopRequest())
    if args.run.layer_parallel == "threads":
        return Threads(parts, steps, args.run.async_buffer)
    assert recorder is not None  # `choose_recorder` refuses streams without
    try:
        return Streams(parts, steps, recorder, step)
    except Uncapturable as error:
        raise UserError(f"--layer_parallel streams: a stage cannot be captured: {error}") from error


def _record(part: Part, steps: Steps, recorder: Recorder, step: int, *, must: bool) -> Layout | None:
    """Steps as replays of one recording, or None where they cannot be captured.

    Raises:
        UserError: they cannot, and ``must`` be.
    """
    begin = time.perf_counter()
    try:
        layout = Recorded(Recording(Program(part, steps), recorder, step))
    except Uncapturable as error:
        if must:
            raise UserError(f"--cuda_graph on: a training step cannot be captured: {error}") from error
        logger.info(f"Steps: eager, since one cannot be captured: {error}")
        return None
    logger.info(f"Steps: one CUDA graph each (recorded in {time.perf_counter() - begin:.1f} s)")
    return layout


def obstacle(args: Args, feed: Feed) -> str:
    """Why steps with these settings and training images cannot be captured, or an empty string."""
    if feed.device.type != "cuda":
        return "CUDA graphs need a GPU"
    if args.run.layer_parallel not in ("off", "streams"):
        return f"--layer_parallel {args.run.layer_parallel} has steps of its own"
    if not feed.placement.is_resident:
        return "the host gathers the training images, which do not fit the GPU"
    return "the host draws the masks of --dropout_prob" if args.model.dropout_prob > 0 else ""


def choose_recorder(args: Args, feed: Feed) -> tuple[Recorder | None, str]:
    """The recorder that ``--cuda_graph`` asks for, or None and why there is none.

    Raises:
        UsageError: steps must be captured, and cannot.
    """
    reason = "--cuda_graph off" if args.run.cuda_graph == "off" else obstacle(args, feed)
    if reason and args.run.layer_parallel == "streams":
        raise UsageError(f"--layer_parallel streams runs CUDA graphs side by side: {reason}; give --layer_parallel off")
    if reason and args.run.cuda_graph == "on":
        raise UsageError(f"--cuda_graph on: {reason}; give --cuda_graph off or auto")
    return (None, reason) if reason else (CudaGraphs(feed.device), "")
