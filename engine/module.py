"""The LightningModule: it lets a layout take the training steps, evaluates, logs and saves.

A "batch" for Lightning is a chunk: the range of steps up to the next log line. Inside it nothing is logged and
nothing waits for the device, which `self.log` and Lightning's loop would do at every step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from loguru import logger

from consts import TRAIN, block_name
from datamodules.feed import Feed
from engine import saving
from engine.devices import allocated_memory, peak_memory, reserved_memory, reset_peak_memory
from engine.epoch import end_epoch
from engine.loop.layout import Course, Layout
from engine.loop.meter import Totals
from engine.loop.optimizer import build_optimizer
from engine.loop.steps import Steps
from engine.observers import Observers
from engine.parallel.world import Alone
from engine.run.console import Progress
from engine.run.log import RunLog
from engine.run.signals import StopRequest
from methods._base import Method
from schemas import Args
from utils import Interrupted


class Chunks:
    """What Lightning iterates over in an epoch: ranges of step numbers, from the run's next step on."""

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


class Instant(NamedTuple):
    """A moment on the wall clock, and how long this process has worked by then, all threads together."""

    clock_s: float
    cpu_s: float

    @classmethod
    def now(cls) -> Instant:
        """The present one."""
        return cls(time.perf_counter(), time.process_time())


class TrainingModule(pl.LightningModule):
    """Trains ``method`` on ``feeds``; everything that a checkpoint must hold is here.

    Attributes:
        step: optimiser steps taken so far, over the whole run.
        interval: sums of the metrics since the last log line.
        train_s: seconds spent in training steps so far.
        train_cpu_s: what this process worked in that time, all threads together; on a busy machine it tells more.
        peak_bytes, reserved_bytes: the most memory allocated and reserved (`engine.devices`) with earlier layouts; a
            recorded step's own memory counts, which torch does not count as allocated.
        best: the best epoch's number (from 1), and its accuracies.

    Args:
        args, method, feeds, log, stop, observers, ranks: of the run.
        build: from the optimiser and ``step=``, the number of the next step, the layout that takes the steps; called
            at the begin of each of the method's phases.
    """

    def __init__(
        self,
        args: Args,
        method: Method,
        feeds: dict[str, Feed],
        log: RunLog,
        stop: StopRequest,
        observers: Observers,
        build: Callable[..., Layout],
        ranks: Alone | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.args, self.method, self.feeds = args, method, feeds
        self.run_log, self.stop, self.observers = log, stop, observers
        self.optimizer = build_optimizer(args.optim, method)
        self.steps = Steps(args, method, feeds[TRAIN])
        self.step, self.train_s, self.train_cpu_s, self.time_s = 0, 0.0, 0.0, 0.0
        self._clock = time.monotonic()
        self.best: dict[str, Any] = {"epoch": 0, "chosen": -1.0, "test": None}
        self.interval, self.epoch_totals = Totals(), Totals()
        self.progress: Progress | None = None
        self.ranks = ranks or Alone()
        self._build = build
        self.layout: Layout | None = None
        self.peak_bytes = self.reserved_bytes = 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch."""
        return self.steps.per_epoch

    @property
    def num_steps(self) -> int:
        """Optimiser steps in the run."""
        return self.steps.count

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
        """Take the signals back from Lightning, start the clock, and build the layout."""
        self.stop.install()
        self.progress = Progress(self.num_steps, self.step, self.args.run.progress_bar and self.ranks.is_leader)
        self._clock = time.monotonic() - self.time_s
        self.begin_phase()

    def begin_phase(self) -> None:
        """Tell the method which phase the next step belongs to, and build the layout that trains it."""
        self.release()  # frees memory first
        self.method.enter_phase(self.phase)
        phases = self.method.phases
        if phases.count > 1:
            logger.info(f"Phase {phases.now + 1}/{phases.count}: {block_name(phases.learning[0])} learns")
        self.layout = self._build(self.optimizer, step=self.step)
        device = self.feeds[TRAIN].device
        self.peak_bytes = max(self.peak_bytes, allocated_memory(device) + self.layout.step_bytes)
        reset_peak_memory(device)  # so that recording does not count

    def release(self) -> None:
        """Close the layout, if there is one, and free its memory."""
        if self.layout is not None:
            self.note_peak()
            if self.layout.balance is not None:
                logger.info(f"Stages worked {self.layout.balance:.0%} of the busiest one's time")
            self.layout.close()
        self.layout = None

    def note_peak(self) -> None:
        """Update `peak_bytes` and `reserved_bytes`."""
        device = self.feeds[TRAIN].device
        self.peak_bytes = max(self.peak_bytes, peak_memory(device))
        self.reserved_bytes = max(self.reserved_bytes, reserved_memory(device))

    def transfer_batch_to_device(self, batch: range, device: torch.device, dataloader_idx: int) -> range:
        """A chunk is a range of step numbers; the images are on the device already."""
        return batch

    def training_step(self, chunk: range, index: int) -> None:
        """Take every step of ``chunk``, then write one line of metrics."""
        begin, before = Instant.now(), self.interval.num_images
        if self.phase != self.method.phases.now:
            self.begin_phase()
        self.take(chunk)
        if self.step <= chunk[-1]:
            self._note_time(begin)
            self._save_and_leave()
        seconds = self._note_time(begin)
        totals, self.interval = self.interval, Totals()
        self.epoch_totals = self.epoch_totals + totals
        saving.finite_check(self).totals(totals, self.step)
        rate = (totals.num_images - before) / seconds
        values = {"learning_rate": self.steps.rate(chunk[-1]), "images_per_second": rate}
        self.run_log.write("step", self.position(chunk[-1] // self.steps_per_epoch) | values | totals.means(TRAIN))
        if self.step % self.steps_per_epoch:  # the end of an epoch has its own place to stop
            self._save_and_leave()

    def take(self, chunk: range) -> None:
        """Take the steps of ``chunk``, or those up to a signal, and wait for the device."""
        assert self.layout is not None
        self.interval = self.layout.run(Course(chunk, self.interval, self._advance, self._is_stopped))
        if self.step > chunk[0]:
            self.steps.leave_as_after(self.optimizer, self.step - 1)

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
                saving.save(self)
            raise Interrupted(self.stop.exit_code)

    def _collect(self) -> None:
        if self.layout is not None:
            self.layout.collect()

    def _advance(self, step: int) -> None:
        """Step ``step`` is done."""
        self.step = step + 1
        assert self.progress is not None
        self.progress.advance(f"epoch {step // self.steps_per_epoch + 1}/{self.args.optim.epochs}")

    def _note_time(self, begin: Instant) -> float:
        now = Instant.now()
        seconds = now.clock_s - begin.clock_s
        self.train_s += seconds
        self.train_cpu_s += now.cpu_s - begin.cpu_s
        self.note_wall_time()
        return seconds

    def note_wall_time(self) -> None:
        """Update `time_s`."""
        self.time_s = time.monotonic() - self._clock

    def position(self, epoch: int) -> dict[str, Any]:
        """Where the run is, as every line of metrics has it."""
        return {"step": self.step, "epoch": epoch + 1, "time_s": round(time.monotonic() - self._clock, 3)}

    def on_train_epoch_end(self) -> None:
        """Evaluate, write the epoch's line, save.

        Raises:
            Interrupted: a signal came; the checkpoint is written.
        """
        self._collect()
        if self.ranks.is_leader:
            end_epoch(self)
        self.epoch_totals = Totals()
        self.ranks.agree_to_stop(self.stop)
        if self.stop.exit_code is not None:
            raise Interrupted(self.stop.exit_code)
