"""Train a run from its settings and data to a finished run folder."""

from __future__ import annotations

import contextlib
import logging
import warnings
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from loguru import logger
from pytorch_lightning.accelerators import CUDAAccelerator
from torch import Tensor

import reports
from consts import DONE, FAILED, INTERRUPTED, TEST, TRAIN, VAL
from datamodules.base import ImageSet, Splits
from datamodules.curriculum import Curriculum
from datamodules.feed import Feed, evaluation_batch
from engine import memory, saving
from engine.devices import choose_precision, compile_blocks, describe_precision, keep_freed_memory
from engine.layouts import build_layout, choose_recorders
from engine.module import Chunks, TrainingModule
from engine.observers import Observers
from engine.parallel.partition import choose_stages
from engine.parallel.world import Alone
from engine.run import checkpoint
from engine.run.console import log_to_file, places, results, say
from engine.run.dashboard import Dashboard
from engine.run.folder import RunFolder
from engine.run.log import NoLog, RunLog
from engine.run.provenance import environment
from engine.run.same_data import check_same_data, moved_from, record_move, words_for_move
from engine.run.signals import StopRequest
from engine.run.tensorboard_log import TensorBoardLog
from engine.run.wandb_log import WandbLog
from engine.summary import describe_blocks, introduce, write_summary
from methods._base import Method
from schemas import Args
from utils import EXIT_FAILURE, Interrupted, UserError


@dataclass(frozen=True)
class Job:
    """A run that is ready to start.

    Attributes:
        args: the settings.
        command: the command as typed.
        method: the network with its rule, on the CPU.
        splits: the data.
        device: where to train, set up by `engine.devices.use_device`.
        resume: the run folder to resume, or None for a new run.
        ranks: the processes that train it.
        ranking_P: of a new run with a curriculum, the training images in curriculum order.
    """

    args: Args
    command: str
    method: Method
    splits: Splits
    device: torch.device
    resume: Path | None = None
    ranks: Alone = field(default_factory=Alone)
    ranking_P: Tensor | None = None


def make_feeds(
    args: Args,
    splits: Splits,
    device: torch.device,
    ranking_P: Tensor | None = None,
    *,
    two_views: bool = False,
) -> dict[str, Feed]:
    """Batches of the splits: training augmented and shuffled, the others as they are.

    With a ranking of the training images the first epochs draw from its beginning (``--curriculum``).
    """
    spec, data, optim = splits.spec, args.data, args.optim
    until = data.curriculum_until * optim.epochs
    curriculum = None if ranking_P is None else Curriculum(ranking_P, data.curriculum_start, until)
    train = Feed(
        splits.train, spec, optim.batch_size, device, augment=data, seed=optim.seed, curriculum=curriculum,
        two_views=two_views,
    )  # fmt: skip
    held_out: dict[str, ImageSet | None] = {VAL: splits.val, TEST: splits.test}
    others = {
        name: Feed(images, spec, evaluation_batch(spec), device)
        for name, images in held_out.items()
        if images is not None
    }
    return {TRAIN: train, **others}


def run(job: Job) -> dict[str, Any]:
    """Train, and return what ``summary.json`` holds at the end.

    Raises:
        Interrupted: by a signal; the run can be resumed.
        UserError: the run cannot go on.
    """
    try:
        with contextlib.ExitStack() as held:
            return _run(job, held)
    except Exception as error:
        if memory.is_out_of_memory(error):
            raise UserError(f"out of memory on {job.device} before training began") from error
        raise


def _run(job: Job, held: contextlib.ExitStack) -> dict[str, Any]:
    """Train; resources to release at the end are put into ``held``."""
    ranks, state = job.ranks, None
    if job.resume is not None and ranks.is_leader:
        held.enter_context(RunFolder(job.resume).locked())
        state = checkpoint.load_newest(RunFolder(job.resume).checkpoints, logger.warning)
    state = ranks.agree(state)
    if job.resume is not None:
        with ranks.together():
            check_same_data(RunFolder(job.resume), job.args.data, job.splits.facts)
    if job.device.type == "cpu":
        keep_freed_memory()
    method = job.method.to(job.device).to(memory_format=torch.channels_last)
    # Not computed again for a resumed run: its teacher may be deleted by then.
    ranking_P = job.ranking_P if state is None else state.get("ranking")
    feeds = make_feeds(job.args, job.splits, job.device, ranking_P, two_views=method.two_views)
    recorders, why_not = choose_recorders(job.args, feeds[TRAIN])
    observers = Observers(job.args, job.splits, job.device)
    args = _settle(job, state)
    stages = ranks.agree(choose_stages(args.run, method, feeds[TRAIN].batch(0, 0)) if ranks.is_leader else [])
    blocks = describe_blocks(method)  # torch.fx cannot trace compiled blocks
    if args.run.compile:
        compile_blocks(method, job.device)
    with StopRequest() as stop:  # from here on there is a run folder, which a signal must leave complete
        build = partial(
            build_layout, args, method, feeds[TRAIN], stages=stages, ranks=ranks, stop=stop, recorders=recorders
        )
        log = _open_log(job, args, state, held)
        module = TrainingModule(args, method, feeds, log, stop, observers, build, ranks)
        if state is not None:
            saving.restore(module, state)
        if ranks.is_leader:
            introduce(module, job.device, resuming=state is not None)
            module.run_log.folder.update_summary(blocks=blocks)
        if recorders is None and job.device.type == "cuda":
            logger.info(f"Steps: eager ({why_not})")
        return _fit(module, job.device)


def _open_log(job: Job, args: Args, state: dict[str, Any] | None, held: contextlib.ExitStack) -> RunLog:
    """Create the run folder, or open the one that is resumed, and the logs in it."""
    if not job.ranks.is_leader:
        return NoLog(RunFolder(Path(job.ranks.agree(""))))
    if job.resume is None or state is None:
        folder = RunFolder.create(Path(args.run.path), args.run.name)
        arithmetic = describe_precision(job.device, args.run.precision)
        surroundings = environment(job.device, args.optim.seed) | arithmetic
        folder.write_start(args, job.command, surroundings, job.splits.facts)
        held.enter_context(folder.locked())
        step = 0
    else:
        folder = RunFolder(job.resume)
        with checkpoint.fitting():
            step = int(state["step"])
        folder.forget_after(step)
        folder.begin_summary(args)
    held.enter_context(log_to_file(folder.path))
    if job.resume is not None and (before := moved_from(folder, args.data)) is not None:
        logger.warning(words_for_move(folder, args.data, before))
        record_move(folder, args.data)
    job.ranks.agree(str(folder.path))
    dashboards: list[Dashboard] = [WandbLog(args, folder.path, logger.warning)]
    if args.run.tensorboard:
        dashboards.append(TensorBoardLog(folder.path, step, logger.warning))
    return RunLog(folder, dashboards, partial(reports.refresh, folder.path), logger.warning)


def _settle(job: Job, state: dict[str, Any] | None) -> Args:
    """Replace ``auto`` by the value chosen, which the run folder records."""
    args = job.args
    chosen: str = args.run.precision
    if state is not None:
        with checkpoint.fitting():
            chosen = state["args"]["run"]["precision"]
    elif chosen == "auto" and job.ranks.is_leader:
        chosen, reason = choose_precision(job.device)
        logger.info(f"Precision: {chosen} ({reason}); --precision fp32 or bf16 chooses")
    settled = args.run.model_copy(update={"precision": job.ranks.agree(chosen), "device": str(job.device)})
    return args.model_copy(update={"run": settled})


def _fit(module: TrainingModule, device: torch.device) -> dict[str, Any]:
    """Run Lightning's trainer, and record how it ended."""
    folder = module.run_log.folder
    status, code, problem = FAILED, EXIT_FAILURE, None
    try:
        if module.step < module.num_steps:
            _trainer(module, device).fit(module, train_dataloaders=Chunks(module))
        status, code = DONE, 0
    except Interrupted as interrupted:
        status, code = INTERRUPTED, interrupted.exit_code
        logger.warning(f"Stopped at step {module.step}, everything is saved; go on with --resume {folder.path}")
        raise
    except UserError as error:
        problem = str(error)
        raise
    except Exception as error:
        if not memory.is_out_of_memory(error):
            raise
        memory.forget(error)
        module.release()  # with the memory of recorded steps
        settings = module.args.run
        too_much = memory.explain(
            module.method, module.feeds[TRAIN], settings.precision,
            parts=max(settings.num_replicas, module.args.optim.accumulate),
            accumulates=settings.num_replicas == 1 and settings.layer_parallel == "off",
        )  # fmt: skip
        problem = str(too_much)
        raise too_much from None
    finally:
        if module.progress is not None:
            module.progress.close()
        module.release()
        summary = write_summary(module, status, problem) if module.ranks.is_leader else {}
        if status == DONE and summary:  # before the dashboards close, which show these lines as well
            say(results(summary))
        module.run_log.close(code, summary)
    if module.ranks.is_leader:
        say([*places(folder.path), *module.run_log.addresses])
    return summary


class Gpu(CUDAAccelerator):
    """Lightning's accelerator for GPUs, whose end cannot fail a run that is done."""

    def teardown(self) -> None:
        """Free cached memory, which torch 2.11 refuses after a capture that failed (pytorch#180395)."""
        with contextlib.suppress(RuntimeError):
            super().teardown()


def _trainer(module: TrainingModule, device: torch.device) -> pl.Trainer:
    """Lightning's trainer, without the features that the engine has itself."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="(pytorch_lightning|lightning_fabric|lightning).*")
    return pl.Trainer(
        accelerator=Gpu() if device.type == "cuda" else "cpu",
        devices=[device.index or 0] if device.type == "cuda" else 1,
        max_epochs=module.args.optim.epochs - module.epoch,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        deterministic=None,
        benchmark=None,
    )
