"""The folder of a sweep: its file, its study, its trials' logs, and a run folder for every trial."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Any

from consts import TRIAL
from engine.run.folder import RunFolder
from utils import UserError, read_json, write_json, write_text

FOREIGN_PATIENCE_S = 120.0  # a trial of another machine whose lock was not touched for so long is abandoned


class SweepFolder:
    """Paths and small files of one sweep.

    Attributes:
        path: the folder.
        sweep_file: copy of the sweep file.
        journal: Optuna's study, one line for every change; several machines may append to it.
        trials: logs and locks of the trials.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sweep_file = path / "sweep.yaml"
        self.journal = path / "study.journal"
        self.trials = path / "trials"
        self._facts = path / "sweep.json"

    @classmethod
    def create(cls, parent: Path, name: str) -> SweepFolder:
        """Make ``<parent>/<date>_<time>_sweep_<name>``, with a counter where it exists.

        Raises:
            UserError: nothing can be written there.
        """
        stem = time.strftime("%Y-%m-%d_%H-%M-%S") + f"_sweep_{name}"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for count in range(1, 1000):
                path = parent / (stem if count == 1 else f"{stem}_{count}")
                with contextlib.suppress(FileExistsError):
                    path.mkdir()
                    (path / "trials").mkdir()
                    return cls(path)
        except OSError as error:
            raise UserError(f"--path {parent}: cannot make a sweep folder there: {error.strerror}") from None
        raise UserError(f"--path {parent}: a thousand sweeps were started in one second")

    def write_start(self, file: Path, num_trials: int, seed: int, command: str) -> None:
        """Keep what the sweep is."""
        write_text(self.sweep_file, file.read_text(encoding="utf-8"))
        write_json(self._facts, {"num_trials": num_trials, "seed": seed, "command": command, "file": str(file)})

    def exists(self) -> bool:
        """Whether there is a sweep."""
        return self._facts.is_file() and self.sweep_file.is_file()

    @property
    def facts(self) -> dict[str, Any]:
        """``num_trials``, ``seed``, ``command`` and ``file``."""
        return dict(read_json(self._facts))

    def set_num_trials(self, num_trials: int) -> None:
        """Ask for more trials, or fewer."""
        write_json(self._facts, self.facts | {"num_trials": num_trials})

    def log_of(self, number: int) -> Path:
        """What a trial printed."""
        return self.trials / f"{trial_name(number)}.log"

    def run_of(self, number: int) -> Path | None:
        """The run folder of a trial, the newest if it was started anew; None before it has one."""
        found = [path for path in self.path.glob(f"*_{trial_name(number)}*") if path.is_dir()]
        return max(found, key=lambda path: path.name, default=None)

    def is_training(self, number: int) -> bool:
        """Whether a process, of this sweep or a killed one, still trains in the run folder of a trial."""
        run = self.run_of(number)
        return run is not None and RunFolder(run).is_in_use()

    def mend_journal(self) -> None:
        """Cut off a line that was not finished when a machine died; the next one would be appended to it."""
        if not self.journal.exists():
            return
        content = self.journal.read_bytes()
        if content and not content.endswith(b"\n"):
            os.truncate(self.journal, content.rfind(b"\n") + 1)


def trial_name(number: int) -> str:
    """``trial_0007``; part of the run folder's name."""
    return f"{TRIAL}{number:04d}"


class Claim:
    """Lock of a trial: a lock that the kernel takes back when the last process that holds it is dead.

    The trial's own process inherits it, so a trial whose sweep was killed counts as alive until it is dead too. Where
    a shared file system keeps locks to one machine, the time at which the file was last touched decides.
    """

    def __init__(self, folder: SweepFolder, number: int) -> None:
        self.path = folder.trials / f"{trial_name(number)}.lock"
        self.descriptor: int | None = None

    def take(self, *, foreign: bool = False) -> bool:
        """Try to become the one who runs it; ``foreign`` says that another machine had it last."""
        age = self._age_s() if foreign else None
        if age is not None and age < FOREIGN_PATIENCE_S:
            return False
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError:
            pass  # a file system without locks
        self.descriptor = descriptor
        self.touch()
        return True

    def _age_s(self) -> float | None:
        """Seconds since the lock was touched, by the clock of the file system."""
        if not self.path.exists():
            return None
        probe = self.path.with_name(f".clock.{os.getpid()}")
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
        return now - self.path.stat().st_mtime

    def touch(self) -> None:
        """Show other machines that the trial is alive."""
        if self.descriptor is not None:
            os.utime(self.descriptor)

    def release(self) -> None:
        """Let go."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
