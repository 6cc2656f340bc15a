"""The LightningModule: it steps a method over chunks of batches, and knows nothing of what the method does.

A "batch" for Lightning is a chunk: the range of steps up to the next log line. Inside it nothing is logged and
nothing waits for the device; `self.log` and Lightning's loop would cost it at every step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch
from loguru import logger

from consts import ACCURACY, TEST, TRAIN, VAL, block_name, metric_name
from datamodules.feed import Feed
from engine.evaluation import evaluate
from engine.loop.finite import FiniteCheck
from engine.loop.meter import Meter, Totals
from engine.loop.optimizer import build_optimizer
from engine.loop.program import StaticStep
from engine.loop.recorded import StepGraph, Uncapturable
from engine.loop.recorders import Recorder
from engine.loop.steps import Stepper
from engine.observers import Observers
from engine.parallel.processes import Processes
from engine.parallel.ranks import Ranks
from engine.parallel.stage import Course, Layout, Rules, Stage
from engine.parallel.streams import Wavefront
from engine.parallel.threads import Threads
from engine.parallel.world import Alone
from engine.run import checkpoint
from engine.run.console import Progress, epoch_line
from engine.run.log import RunLog
from engine.run.signals import StopRequest
from methods._base import Method
from methods._local import LocalMethod
from schemas import Args
from utils import Interrupted, UserError


class Chunks:
    """What Lightning iterates over in an epoch: ranges of step numbers, from where the run stands."""

    def __init__(self, module: TrainingModule) -> None:
        self._module = module

    def __iter__(self) -> Iterator[range]:
        """Ranges up to the next multiple of ``--log_interval``, or the epoch's end."""
        module = self._module
        first, interval = module.step, module.args.run.log_interval
        end = (first // module.steps_per_epoch + 1) * module.steps_per_epoch
        while first < end:
            last = min(end, (first // interval + 1) * interval)
            yield range(first, last)
            first = last


class TrainingModule(pl.LightningModule):
    """Trains ``method`` on ``feeds``; everything that a checkpoint must hold is here.

    Attributes:
        step: optimiser steps taken so far, over the whole run.
        train_s: seconds spent in training steps so far.
        best: the best epoch's number (from 1), and its accuracies.
    """

    def __init__(
        self, args: Args, method: Method, feeds: dict[str, Feed], log: RunLog, stop: StopRequest, observers: Observers
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.args, self.method, self.feeds = args, method, feeds
        self.run_log, self.stop, self.observers = log, stop, observers
        self.optimizer = build_optimizer(args.optim, method)
        self.stepper = Stepper(args, method, feeds[TRAIN])
        self.step, self.train_s, self.time_s = 0, 0.0, 0.0
        self._clock = time.monotonic()
        self.best: dict[str, Any] = {"epoch": 0, "chosen": -1.0, "test": None}
        self.interval, self.epoch_totals = Meter(), Totals()
        self.progress: Progress | None = None
        self.ranks = Alone()
        self.layout: Layout | None = None
        self.stages: Sequence[range] = ()
        self.recorder: Recorder | None = None
        self.graph: StepGraph | None = None

    def parallelise(self, stages: Sequence[range], ranks: Alone) -> None:
        """Train each of ``stages``, blocks, in a place of its own: a thread, one of ``ranks``, or a stream of a GPU."""
        assert isinstance(self.method, LocalMethod)
        args, self.ranks, self.stages = self.args.run, ranks, stages
        delays = args.stage_delay or (0.0,) * len(stages)
        rules = Rules(self.method, args.precision, self.stepper.seed_block, self.stepper.update)
        if isinstance(ranks, Ranks):
            self.stepper.replica = ranks.replica
            rules = replace(rules, average=ranks.average)
            own = Stage(rules, stages[ranks.stage], self.optimizer, delays[ranks.stage])
            self.layout = Processes(ranks, own, stages, self.feeds[TRAIN].device, self.stop)
        elif args.layer_parallel == "threads":
            places = [Stage(rules, *each) for each in zip(stages, [self.optimizer] * len(stages), delays, strict=True)]
            self.layout = Threads(places, args.async_buffer)

    def _line_up(self, recorder: Recorder) -> None:
        """Train the stages in streams of one GPU from here on.

        Raises:
            UserError: a stage cannot be captured.
        """
        assert isinstance(self.method, LocalMethod)
        feed = self.feeds[TRAIN]
        try:
            self.layout = Wavefront(self.args, self.method, feed, self.optimizer, self.stages, recorder, self.step)
        except Uncapturable as error:
            raise UserError(f"--layer_parallel streams: a stage cannot be captured: {error}") from error

    @property
    def steps_per_epoch(self) -> int:
        """Of an epoch."""
        return self.stepper.per_epoch

    @property
    def num_steps(self) -> int:
        """Of the run."""
        return self.stepper.count

    @property
    def epoch(self) -> int:
        """The epoch of the next step, from 0."""
        return self.step // self.steps_per_epoch

    @property
    def phase(self) -> int:
        """The phase of the next step, from 0; equally many epochs belong to each."""
        return self.step * self.method.phases.count // self.num_steps

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """For Lightning's book-keeping; steps are taken on the optimiser itself."""
        return self.optimizer

    def on_train_start(self) -> None:
        """Take the signals back from Lightning, start the clock, and record a step where that is wanted."""
        self.stop.install()
        self.progress = Progress(self.num_steps, self.step, self.args.run.progress_bar and self.ranks.is_leader)
        self._clock = time.monotonic() - self.time_s
        self._enter_phase()

    def _enter_phase(self) -> None:
        """Let the blocks learn whose turn it is at the next step, and record a step of theirs where that is wanted."""
        self.graph = None  # its memory first
        self.method.enter_phase(self.phase)
        phases = self.method.phases
        if phases.count > 1:
            logger.info(f"Phase {phases.now + 1}/{phases.count}: {block_name(phases.learning[0])} learns")
        if self.recorder is not None and self.stages:
            self._line_up(self.recorder)
        elif self.recorder is not None:
            self._record(self.recorder)

    def _record(self, recorder: Recorder) -> None:
        """Take the steps as replays of one recording from here on; where that cannot be, as before.

        Raises:
            UserError: it cannot be, and ``--cuda_graph on`` asks for it.
        """
        begin = time.perf_counter()
        try:
            program = StaticStep(self.args, self.method, self.feeds[TRAIN], self.optimizer)
            self.graph = StepGraph(program, recorder, self.step)
        except Uncapturable as error:
            if self.args.run.cuda_graph == "on":
                raise UserError(f"--cuda_graph on: a training step cannot be captured: {error}") from error
            logger.info(f"Steps: eager, since one cannot be captured: {error}")
        else:
            logger.info(f"Steps: one CUDA graph each (recorded in {time.perf_counter() - begin:.1f} s)")

    def transfer_batch_to_device(self, batch: range, device: torch.device, dataloader_idx: int) -> range:
        """A chunk is a range of step numbers; the images are on the device already."""
        return batch

    def training_step(self, chunk: range, index: int) -> None:
        """Take every step of ``chunk``, then read the meter once and write one line."""
        begin = time.perf_counter()
        before = self.interval.num_images
        if self.phase != self.method.phases.now:
            self._enter_phase()
        self._take_steps(chunk)
        if self.step <= chunk[-1]:
            self._note_time(begin)
            self._save_and_leave()
        totals = self.interval.read()  # waits for the device, so that the time is that of finished work
        seconds = self._note_time(begin)
        self.interval = Meter()
        self.epoch_totals = self.epoch_totals + totals
        self._finite.totals(totals, self.step)
        rate = (totals.num_images - before) / seconds
        values = {"learning_rate": self.stepper.rate(chunk[-1]), "images_per_second": rate}
        self.run_log.write("step", self._position(chunk[-1] // self.steps_per_epoch) | values | totals.means(TRAIN))
        if self.step % self.steps_per_epoch:  # the end of an epoch has its own place to stop
            self._save_and_leave()

    def _take_steps(self, chunk: range) -> None:
        """Take the steps of ``chunk``, or those up to a signal."""
        if self.layout is not None:
            before = self.interval.read()
            course = Course(chunk, self.stepper.batch, before, self._advance, self._is_stopped)
            self.interval = Meter(self.layout.run(course))
        elif self.graph is not None:
            self.interval = Meter(self.graph.run(chunk, self.interval.read(), self._advance, self._is_stopped))
        else:
            self._take_them_here(chunk)
            return
        if self.step > chunk[0]:  # leave optimiser and generators as the last step would by itself
            self.stepper.leave_as_after(self.optimizer, self.step - 1)

    def _take_them_here(self, chunk: range) -> None:
        for step in chunk:
            self._take_step(step)
            if self._is_stopped():
                return

    def _is_stopped(self) -> bool:
        return self.stop.exit_code is not None

    def _save_and_leave(self) -> None:
        """Do what a signal asked for, if one did.

        Raises:
            Interrupted: a signal came; the checkpoint is written.
        """
        if self.stop.exit_code is not None:
            self._collect()
            if self.ranks.is_leader:
                self._write()
            raise Interrupted(self.stop.exit_code)

    def _collect(self) -> None:
        """Bring what other processes learned to the leader."""
        if isinstance(self.layout, Processes):
            self.layout.collect(self.method, self.optimizer)

    def _take_step(self, step: int) -> None:
        self.interval.add(*self.stepper.take(self.optimizer, step))
        self._advance(step)

    def _advance(self, step: int) -> None:
        """Step ``step`` is done."""
        self.step = step + 1
        assert self.progress is not None
        self.progress.advance(f"epoch {step // self.steps_per_epoch + 1}/{self.args.optim.epochs}")

    @property
    def _finite(self) -> FiniteCheck:
        return FiniteCheck(self.method, self.optimizer, self.run_log.folder.checkpoints)

    def _note_time(self, begin: float) -> float:
        seconds = time.perf_counter() - begin
        self.train_s += seconds
        self.time_s = time.monotonic() - self._clock
        return seconds

    def _position(self, epoch: int) -> dict[str, Any]:
        return {"step": self.step, "epoch": epoch + 1, "time_s": round(time.monotonic() - self._clock, 3)}

    def on_train_epoch_end(self) -> None:
        """Evaluate, write the epoch's line, save.

        Raises:
            Interrupted: a signal came; the checkpoint is written.
        """
        self._collect()
        if self.ranks.is_leader:
            self._end_epoch(self.epoch - 1)
        self.epoch_totals = Totals()
        self.ranks.agree_to_stop(self.stop)
        if self.stop.exit_code is not None:
            raise Interrupted(self.stop.exit_code)

    def _end_epoch(self, epoch: int) -> None:
        values = self.epoch_totals.means(TRAIN)
        for split in (VAL, TEST):
            if split in self.feeds:
                values |= evaluate(self.method, self.feeds[split], self.args.run.precision).means(split)
        self.epoch_totals = Totals()
        values |= self.observers.measure(self.method)
        self.run_log.write("epoch", self._position(epoch) | values)
        self._announce(epoch, values)
        if self.run_log.is_due or self.step == self.num_steps:
            self.observers.show(self.method, self.feeds[TEST], self.run_log, self._position(epoch))
        # The network has no accuracy before all its blocks have begun to learn, and no epoch before that is the best.
        chosen = values.get(metric_name(VAL if VAL in self.feeds else TEST, ACCURACY), self.best["chosen"])
        better = chosen > self.best["chosen"]
        if better:
            self.best = {"epoch": epoch + 1, "chosen": chosen, "test": values[metric_name(TEST, ACCURACY)]}
        self.time_s = time.monotonic() - self._clock
        self._write(best=better)
        self.run_log.draw()

    def _announce(self, epoch: int, values: dict[str, float]) -> None:
        assert self.progress is not None
        learning = self.method.phases.learning
        block = learning[0] if self.method.last not in learning else None  # in place of the network
        logger.info(epoch_line(epoch, self.args.optim.epochs, self.time_s, self.progress.eta_s, values, block))
        self.progress.spoke()

    def state(self) -> dict[str, Any]:
        """All that the rest of the run depends on."""
        curriculum = self.feeds[TRAIN].curriculum
        return {
            "args": self.args.model_dump(mode="json"),
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "phase": self.method.phases.now,
            "ranking": None if curriculum is None else curriculum.ranking_P,
            "train_s": self.train_s,
            "time_s": self.time_s,
            "best": self.best,
            "interval": self.interval.read().state(),
            "epoch_totals": self.epoch_totals.state(),
        }

    def _write(self, *, best: bool = False) -> None:
        """Write ``last.ckpt``, and ``best.ckpt`` where asked.

        Raises:
            UserError: the disk refuses, or there is something in it that is not finite.
        """
        self._finite.totals(self.interval.read(), self.step)
        self._finite.state(self.step)
        checkpoint.save_last(self.run_log.folder.checkpoints, self.state(), best=best)

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`.

        Raises:
            UserError: it is of another network, method or optimiser.
        """
        checkpoint.restore(self.method, state)
        with checkpoint.fitting():
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.train_s, self.time_s = state["step"], state["train_s"], state["time_s"]
            self.best = state["best"]
            self.interval, self.epoch_totals = Meter(Totals(**state["interval"])), Totals(**state["epoch_totals"])
