"""One trial: the command a person would type, in a process of its own, watched through its run folder."""

from __future__ import annotations

import math
import shlex
import signal
import time
from pathlib import Path

from loguru import logger

from consts import ACCURACY, CHECKPOINT_DIR, METRICS_FILE, TEST, metric_name
from reports.files import finite, read_metrics
from sweeps.engines import Engine, Launch, Process
from sweeps.folder import Claim, SweepFolder, trial_name
from utils import EXIT_SIGTERM, UserError, write_text

MAIN = Path(__file__).parent.parent / "main.py"
PATIENCE_S = 120.0  # between asking a trial to save and leave, and killing it
_KILLED = (EXIT_SIGTERM, -signal.SIGTERM, -signal.SIGKILL)


class TrialProcess:
    """A training run of the sweep.

    Attributes:
        number: the trial's.
        begin: when it started, on the monotonic clock.
        epochs: value of the metric by epoch, from 1; NaN where it was not finite.
        asked_to_stop: whether the sweep stopped it.
    """

    def __init__(
        self, folder: SweepFolder, number: int, words: list[str], device: str, claim: Claim, engine: Engine
    ) -> None:
        self.folder, self.number, self.claim = folder, number, claim
        self.begin = time.monotonic()
        self.epochs: dict[int, float] = {}
        self.asked_to_stop = False
        self._words, self._device, self._engine = words, device, engine
        self._read_at, self._stopped_at, self._num_losses = 0, 0.0, 0
        self._process = self._start()

    def _start(self) -> Process:
        words = self._where(self._words)
        name, log = trial_name(self.number), self.folder.log_of(self.number)
        write_text(self.folder.trials / f"{name}.sh", shlex.join(["python", "main.py", *words]) + "\n")
        self._log_from = log.stat().st_size if log.exists() else 0
        group, lock = self.folder.path.name, self.claim.descriptor
        return self._engine.start(Launch([str(MAIN), *words], log, group, self._device, lock))

    def _where(self, words: list[str]) -> list[str]:
        """A new run inside the sweep's folder; or the one that was cut off goes on."""
        before = self.folder.run_of(self.number)
        if before is not None and any((before / CHECKPOINT_DIR).glob("*.ckpt")):
            return [f"--resume={before}", "--no_progress_bar"]
        return [*words, f"--path={self.folder.path}", f"--name={trial_name(self.number)}", "--no_progress_bar"]

    def poll(self) -> int | None:
        """The exit code, None while it runs; where the engine may, a run that was killed goes on.

        Raises:
            UserError: the engine could not start it.
        """
        code = self._process.poll()
        if code in _KILLED and not self.asked_to_stop and self._num_losses < self._engine.max_losses:
            if not self.folder.is_training(self.number):  # its worker may have died before it
                self._num_losses += 1
                times = f"{self._num_losses} of {self._engine.max_losses} times"
                logger.warning(f"Trial {self.number} was killed and goes on ({times})")
                self._process = self._start()
            code = None
        if code is None:
            self.claim.touch()
            if self._stopped_at and time.monotonic() - self._stopped_at > PATIENCE_S:
                self._process.kill()
        return code

    def stop(self) -> None:
        """Ask it to save and leave."""
        if not self.asked_to_stop:
            self.asked_to_stop, self._stopped_at = True, time.monotonic()
            self._process.terminate()

    def was_stopped(self, code: int) -> bool:
        """Whether it left because `stop` asked for it; a run that ended by itself meanwhile is finished."""
        return self.asked_to_stop and code in _KILLED

    def new_epochs(self, metric: str) -> dict[int, float]:
        """The metric of the epochs that ended since the last call.

        Raises:
            UserError: the run logs no such metric.
        """
        run = self.folder.run_of(self.number)
        path = run / METRICS_FILE if run is not None else None
        if path is None or not path.exists() or path.stat().st_mtime_ns == self._read_at:
            return {}
        self._read_at = path.stat().st_mtime_ns
        new = {int(line["epoch"]): line for line in read_metrics(path, [])[1] if int(line["epoch"]) not in self.epochs}
        for epoch, line in new.items():
            if metric not in line and metric_name(TEST, ACCURACY) not in line:
                continue  # with --sequential, an epoch before the network as a whole is measured
            if metric not in line:
                raise UserError(f"metric.name {metric}: trial {self.number} ended epoch {epoch} without it")
            value = finite(line[metric])
            self.epochs[epoch] = math.nan if value is None else value
        return {epoch: self.epochs[epoch] for epoch in new if epoch in self.epochs}

    def message(self, code: int) -> str:
        """Why it failed: the last line of what it printed, or the signal that killed it."""
        if code < 0:
            name = signal.Signals(-code).name
            return f"killed by {name}" + (" (out of memory?)" if code == -signal.SIGKILL else "")
        with self.folder.log_of(self.number).open("rb") as log:
            log.seek(self._log_from)
            lines = log.read().decode(errors="replace").strip().splitlines()
        last = lines[-1] if lines else "nothing was printed"
        return f"{last.removeprefix('main.py: error: ')} (exit code {code})"
