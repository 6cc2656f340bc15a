"""Weights & Biases logging that can neither stop nor delay a run.

Lightning's `WandbLogger` was tried: it prompts or raises without a login, a dead wandb service ends the training, and
it sets ``WANDB_MODE`` for the whole process. `metrics.jsonl` is the record; what is lost here is lost to the
dashboard only.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from loguru import logger

from consts import PROJECT, TRIAL, WANDB_DIR
from engine.run.dashboard import Dashboard, one_line
from schemas import Args
from sections.run import RunArgs
from utils import write_text

_INIT_TIMEOUT_S, _FINISH_TIMEOUT_S = 20, 30
_ID_FILE, _ID = "id.txt", re.compile("[0-9a-z]{8}")
_MAX_GROUP, _MAX_TAG = 128, 64  # characters; wandb refuses more
_LINE = "{time:YYYY-MM-DD HH:mm:ss} | {message}"  # of the Logs tab


class WandbLog(Dashboard):
    """One wandb run, or nothing where wandb is disabled, missing or broken; imported only where it is wanted.

    Args:
        args: the settings of the run.
        folder: the run folder; wandb's files go to ``wandb/`` in it.
        warn: called with one line when something is not as asked.
    """

    def __init__(self, args: Args, folder: Path, warn: Callable[[str], None]) -> None:
        super().__init__("wandb", warn)
        self._args, self._folder, self._sink = args, folder, -1
        self._mode: Any = args.run.wandb
        if self._mode != "disabled":
            self._guarded(self._open)

    def _open(self) -> None:
        """Choose between online and offline, and start; what cannot be reached is logged offline."""
        import wandb

        wandb.setup(settings=wandb.Settings(silent=True))  # its messages are reported here, in one line
        if self._mode == "auto":
            self._guarded(self._choose_mode, self._refused)
        if self._mode == "disabled":
            return
        (self._folder / WANDB_DIR).mkdir(exist_ok=True)
        self._guarded(self._start, self._start_offline if self._mode == "online" else None)

    def _choose_mode(self) -> None:
        """Resolve ``auto``; never prompts and never uses the network."""
        import wandb

        if chosen := os.environ.get("WANDB_MODE"):
            self._mode = chosen if chosen in ("online", "offline", "disabled") else "offline"
        elif wandb.login(prompt=False, verify=False):
            self._mode = "online"
        else:
            self._mode = "offline"
            self._warn("not logged in to wandb: logging offline (`wandb login`, or --wandb disabled to leave it out)")

    def _refused(self, error: Exception) -> None:
        self._warn(f"wandb refuses the stored key ({one_line(error)}): logging offline")
        self._mode = "offline"

    def _start_offline(self, error: Exception) -> None:
        import wandb

        hint = f"`wandb sync {self._folder / WANDB_DIR}/offline-*` uploads it later"
        self._warn(f"wandb cannot be reached ({one_line(error)}): logging offline; {hint}")
        self._mode = "offline"
        wandb.teardown(exit_code=1)  # its service still holds the run's id, and would reject it
        self._start()

    def _start(self) -> None:
        """Open the run; a resumed run keeps its id."""
        import wandb

        id_file = self._folder / WANDB_DIR / _ID_FILE
        before = id_file.read_text(errors="replace").strip() if id_file.exists() else ""
        # The agent of a sweep sets the run's id, and would not see a run with another one.
        new_id = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
        run_id = before if _ID.fullmatch(before) else new_id
        write_text(id_file, run_id)
        settings = wandb.Settings(
            init_timeout=_INIT_TIMEOUT_S,
            finish_timeout=_FINISH_TIMEOUT_S,
            finish_timeout_raises=True,
            console="off",
            quiet=True,
            silent=True,
        )
        self._run = wandb.init(
            project=self._args.run.wandb_project or os.environ.get("WANDB_PROJECT") or PROJECT,
            name=os.environ.get("WANDB_NAME") or self._folder.name,
            group=self._args.run.wandb_group or os.environ.get("WANDB_RUN_GROUP") or default_group(self._args),
            tags=tags(self._args), config=self._args.effective() | self._args.labels(),
            dir=str(self._folder.absolute()), id=run_id, resume="allow", mode=self._mode, settings=settings,
        )  # fmt: skip
        offline = f"wandb: logged offline; upload with: wandb sync {self._folder / WANDB_DIR}/offline-run-*"
        self.address = f"wandb: see {self._run.url}" if self._mode == "online" else offline
        for name in ("step", "epoch", "time_s"):  # panels of their own would say nothing
            self._run.define_metric(name, hidden=True)
        self._run.define_metric("*", step_metric="step")
        # The lines of the run, and not the terminal, whose progress bar would fill the Logs tab.
        self._sink = logger.add(self._write_line, format=_LINE, colorize=False)

    def _write_line(self, line: str) -> None:
        run = self._run
        if run is not None:  # a failure is not reported here, inside a report; the next metrics will
            self._guarded(lambda: run.write_logs(line), lambda error: None)

    def _give_up(self, error: Exception) -> None:
        run = self._run
        if run is not None:  # otherwise a later run of this process would get this one
            self._guarded(partial(run.finish, exit_code=1), lambda second: None)
        super()._give_up(error)

    def _log(self, values: Mapping[str, Any]) -> None:
        self._run.log(dict(values))

    def _show(self, pictures: Mapping[str, Path], position: Mapping[str, Any]) -> None:
        import wandb

        self._run.log({name: wandb.Image(str(path)) for name, path in pictures.items()} | dict(position))

    def finish(self, exit_code: int = 0, summary: Mapping[str, Any] | None = None) -> None:
        """Add the ``summary``, and close; returns within the time-out even if the network is down."""
        self._guarded(partial(logger.remove, self._sink), lambda error: None)  # unless it was never added
        super().finish(exit_code, summary)

    def _finish(self, exit_code: int, summary: Mapping[str, Any]) -> None:
        self._run.summary.update({name: value for name, value in summary.items() if not isinstance(value, list)})
        self._guarded(partial(self._run.finish, exit_code=exit_code), self._unfinished)

    def _unfinished(self, error: Exception) -> None:
        if not isinstance(error, TimeoutError):
            raise error
        self.address = ""  # its page is incomplete
        self._warn(
            f"wandb was not done after {_FINISH_TIMEOUT_S} s; metrics.jsonl has everything, and "
            f"`wandb sync {self._folder / WANDB_DIR}/*run-*` uploads the rest"
        )


def default_group(args: Args) -> str:
    """The default wandb group of a run: a sweep's folder, else method, model and data set, but not the seed."""
    if args.run.name.startswith(TRIAL):
        return Path(args.run.path).resolve().name[:_MAX_GROUP]
    return " ".join(args.labels().values())


def tags(args: Args) -> list[str]:
    """Method, model, data set, the folder that ``--path`` gave several runs together, and those of ``WANDB_TAGS``."""
    parent = Path(args.run.path).resolve().name
    given = [word.strip() for word in os.environ.get("WANDB_TAGS", "").split(",")]
    study = [] if parent == RunArgs.model_fields["path"].default else [parent[:_MAX_TAG]]
    words = [*args.labels().values(), *study, *given]
    return [*dict.fromkeys(filter(None, words))]
