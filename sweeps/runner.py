"""The loop of a sweep: keep the workers busy, watch the trials, write down how each ended."""

from __future__ import annotations

import math
import time
from typing import Any

from loguru import logger
from optuna.trial import Trial, TrialState

from engine.run.signals import StopRequest
from sweeps.check import parse, words_of
from sweeps.display import Display
from sweeps.engines import Engine
from sweeps.folder import Claim
from sweeps.study import BEST_EPOCH, BEST_VALUE, MESSAGE, RUN, SweepStudy
from sweeps.trial import TrialProcess
from utils import Interrupted, UsageError, UserError

PAUSE_S = 0.2
MAX_FAILURES = 3  # in a row


class Runner:
    """Runs trials of ``study`` until there are enough.

    Args:
        study: the study; other processes may run trials of it at the same time.
        engine: starts their processes.
        num_workers: trials side by side.
        stop: set by a signal.
        progress_bar: draw a bar in a terminal.
    """

    def __init__(
        self, study: SweepStudy, engine: Engine, num_workers: int, stop: StopRequest, *, progress_bar: bool
    ) -> None:
        self.study, self._engine, self._num_workers, self._stop = study, engine, num_workers, stop
        self._running: list[tuple[Trial, TrialProcess, int]] = []
        self._failures: list[str] = []
        self._display = Display(study, progress_bar)

    def run(self) -> None:
        """Run to the end.

        Raises:
            Interrupted: a signal came; every trial has saved.
            UserError: three trials in a row failed, or a trial does not log the metric.
        """
        try:
            while self._step():
                self._display.show([(process, epochs) for _, process, epochs in self._running])
                time.sleep(PAUSE_S)
        finally:
            self._leave()
            self._display.close()

    def _step(self) -> bool:
        """Poll all trials once; False when the sweep is over."""
        if self._stop.exit_code is not None:
            raise Interrupted(self._stop.exit_code)
        for entry in list(self._running):
            self._watch(*entry)
        if len(self._failures) >= MAX_FAILURES:
            raise UserError(
                f"{MAX_FAILURES} trials in a row failed, the last with: {self._failures[-1]}; "
                f"their logs are in {self.study.folder.trials}"
            )
        while len(self._running) < self._num_workers and not self.study.reached_target():
            following = self.study.next_trial()
            if following is None:
                break
            self._launch(*following)
        # Trials that another process runs may still be abandoned to us.
        elsewhere = any(trial.state == TrialState.RUNNING for trial in self.study.trials)
        return bool(self._running) or (elsewhere and not self.study.reached_target())

    def _launch(self, trial: Trial, claim: Claim) -> None:
        words = words_of(self.study.file, self.study.values_of(trial))
        try:
            args = parse(words)
        except UsageError as error:  # of all combinations only some were checked before
            self._fail(trial, str(error), {})
            claim.release()
            return
        process = TrialProcess(self.study.folder, trial.number, words, args.run.device, claim, self._engine)
        self._running.append((trial, process, args.optim.epochs))

    def _watch(self, trial: Trial, process: TrialProcess, num_epochs: int) -> None:
        code = process.poll()  # before the epochs are read: what an ended process wrote is then complete
        metric = self.study.file.spec.metric.name
        for epoch, value in process.new_epochs(metric).items():
            trial.report(value, epoch)
            if not process.asked_to_stop and self.study.should_stop(trial, epoch) and epoch < num_epochs:
                process.stop()
        if code is not None:
            self._running.remove((trial, process, num_epochs))
            self._end(trial, process, code)
            process.claim.release()

    def _end(self, trial: Trial, process: TrialProcess, code: int) -> None:
        run = self.study.folder.run_of(trial.number)
        facts: dict[str, Any] = {RUN: run.name} if run is not None else {}
        known = {epoch: value for epoch, value in process.epochs.items() if math.isfinite(value)}
        if known and (code == 0 or process.was_stopped(code)):
            epoch, value = self.study.best_of(known)
            state = TrialState.COMPLETE if code == 0 else TrialState.PRUNED
            self.study.finish(trial, state, facts | {BEST_EPOCH: epoch, BEST_VALUE: value})
            self._failures.clear()
            self._display.ended(trial.number, process)
        else:
            reason = process.message(code) if code else f"{self.study.file.spec.metric.name} was never a finite number"
            self._fail(trial, reason, facts)

    def _fail(self, trial: Trial, message: str, facts: dict[str, Any]) -> None:
        self.study.finish(trial, TrialState.FAIL, facts | {MESSAGE: message})
        self._failures.append(message)
        logger.warning(f"Trial {trial.number} failed: {message}")

    def _leave(self) -> None:
        """Ask what still runs to save and leave; these trials stay open, and ``--resume`` goes on with them."""
        for _, process, _ in self._running:
            process.stop()
        while any(process.poll() is None for _, process, _ in self._running):
            time.sleep(PAUSE_S)
        for _, process, _ in self._running:
            process.claim.release()
