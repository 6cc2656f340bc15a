"""One trial: the command a person would type, in a process of its own, watched through its run folder."""

from __future__ import annotations

import ctypes
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from consts import CHECKPOINT_DIR, METRICS_FILE
from reports.files import finite, read_metrics
from sweeps.folder import Claim, SweepFolder, trial_name
from utils import EXIT_SIGTERM, UserError, write_text

MAIN = Path(__file__).parent.parent / "main.py"
PATIENCE_S = 120.0  # between asking a trial to save and leave, and killing it
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class TrialProcess:
    """A training run of the sweep.

    Attributes:
        number: the trial's.
        begin: when it started, on the monotonic clock.
        epochs: value of the metric by epoch, from 1; NaN where it was not finite.
        asked_to_stop: whether the sweep stopped it.
    """

    def __init__(self, folder: SweepFolder, number: int, words: list[str], claim: Claim, threads: int | None) -> None:
        self.folder, self.number, self.claim = folder, number, claim
        self.begin = time.monotonic()
        self.epochs: dict[int, float] = {}
        self.asked_to_stop = False
        self._read_at, self._stopped_at = 0, 0.0
        command = [sys.executable, str(MAIN), *self._where(words)]
        write_text(folder.trials / f"{trial_name(number)}.sh", shlex.join(["python", "main.py", *command[2:]]) + "\n")
        environment = dict(os.environ)
        environment.setdefault("WANDB_RUN_GROUP", folder.path.name)
        if threads is not None:  # several trials side by side would each start a thread for every core
            environment.setdefault("OMP_NUM_THREADS", str(threads))
        with folder.log_of(number).open("ab") as log:
            self._log_from = log.tell()
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                start_new_session=True,  # Ctrl-C is for the sweep, which passes it on
                pass_fds=() if claim.descriptor is None else (claim.descriptor,),
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )  # fmt: skip

    def _where(self, words: list[str]) -> list[str]:
        """A new run inside the sweep's folder; or the one that was cut off goes on."""
        before = self.folder.run_of(self.number)
        if before is not None and any((before / CHECKPOINT_DIR).glob("*.ckpt")):
            return [f"--resume={before}", "--no_progress_bar"]
        return [*words, f"--path={self.folder.path}", f"--name={trial_name(self.number)}", "--no_progress_bar"]

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        code = self._process.poll()
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
        return self.asked_to_stop and code in (EXIT_SIGTERM, -signal.SIGTERM, -signal.SIGKILL)

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
            if metric not in line:
                raise UserError(f"metric.name {metric}: trial {self.number} ended epoch {epoch} without it")
            value = finite(line[metric])
            self.epochs[epoch] = math.nan if value is None else value
        return {epoch: self.epochs[epoch] for epoch in new}

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


def _end_with_parent() -> None:
    """Have the kernel send SIGTERM when the sweep dies, kill -9 included, so that no trial trains on unseen."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
