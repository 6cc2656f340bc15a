"""Weights & Biases logging that can neither stop nor delay a run.

Lightning's `WandbLogger` was tried: it prompts or raises without a login, a dead wandb service ends the training, and
it sets ``WANDB_MODE`` for the whole process. `metrics.jsonl` is the record; what is lost here is lost to the
dashboard only.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from consts import ACCURACY, PROJECT, TEST, VAL, WANDB_DIR, metric_name
from sections.run import RunArgs
from utils import write_text

_INIT_TIMEOUT_S, _FINISH_TIMEOUT_S = 20, 30
_ID_FILE, _ID = "id.txt", re.compile("[0-9a-z]{8}")


class WandbLog:
    """One wandb run, or nothing where wandb is disabled, missing or broken.

    Args:
        mode: value of ``--wandb``.
        folder: the run folder; wandb's files go to ``wandb/`` in it.
        config: flat settings.
        tags: shown beside the run.
        warn: called with one line when something is not as asked.
    """

    def __init__(
        self, mode: str, folder: Path, config: Mapping[str, Any], tags: list[str], warn: Callable[[str], None]
    ) -> None:
        self._run: Any = None
        self._warn, self._folder = warn, folder
        self.mode = mode
        if mode == "disabled":
            return
        try:
            import wandb
        except ImportError:
            warn("wandb is not installed: nothing is logged to it")
            self.mode = "disabled"
            return
        try:
            wandb.setup(settings=wandb.Settings(silent=True))  # its messages are reported here, in one line
        except Exception as error:  # an invalid environment variable or settings file of wandb
            self._give_up(error)
            return
        self.mode = _mode(mode, wandb, warn)
        if self.mode == "disabled":
            return
        (folder / WANDB_DIR).mkdir(exist_ok=True)
        try:
            self._start(wandb, folder, config, tags)
        except Exception as error:
            if self.mode == "offline":
                self._give_up(error)
                return
            warn(f"wandb cannot be reached ({_line(error)}): logging offline; {self._hint(folder)}")
            self.mode = "offline"
            try:
                wandb.teardown(exit_code=1)  # its service still holds the run's id, and would reject it
                self._start(wandb, folder, config, tags)
            except Exception as second:
                self._give_up(second)

    def _start(self, wandb: Any, folder: Path, config: Mapping[str, Any], tags: list[str]) -> None:
        """Open the run; a resumed run keeps its id."""
        id_file = folder / WANDB_DIR / _ID_FILE
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
            project=PROJECT, dir=str(folder.absolute()), id=run_id, resume="allow", name=folder.name,
            config=dict(config), tags=tags, mode=self.mode, settings=settings, group=_study(folder),
        )  # fmt: skip
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        for split in (TEST, VAL):
            self._run.define_metric(metric_name(split, ACCURACY), step_metric="step", summary="max")

    @staticmethod
    def _hint(folder: Path) -> str:
        return f"`wandb sync {folder / WANDB_DIR}/offline-*` uploads it later"

    def _give_up(self, error: Exception) -> None:
        run, self._run, self.mode = self._run, None, "disabled"
        if run is not None:
            with contextlib.suppress(Exception):  # otherwise a later run of this process would get this one
                run.finish(exit_code=1)
        self._warn(f"wandb failed ({_line(error)}): going on without it; {_record()}")

    def log(self, values: Mapping[str, Any]) -> None:
        """Log one line of metrics. The first failure ends the logging, not the training."""
        if self._run is None:
            return
        try:
            self._run.log(dict(values))
        except Exception as error:
            self._give_up(error)

    def log_images(self, paths: Mapping[str, Path], position: Mapping[str, Any]) -> None:
        """Log pictures by name beside the metrics of ``position`` (step and epoch)."""
        if self._run is None or not paths:
            return
        try:
            import wandb

            self._run.log({name: wandb.Image(str(path)) for name, path in paths.items()} | dict(position))
        except Exception as error:
            self._give_up(error)

    def log_table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], position: Mapping[str, Any]
    ) -> None:
        """Log a table beside the metrics of ``position`` (step and epoch)."""
        if self._run is None:
            return
        try:
            import wandb

            table = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
            self._run.log({name: table} | dict(position))
        except Exception as error:
            self._give_up(error)

    def finish(self, exit_code: int = 0) -> None:
        """Close the run; returns within the time-out even if the network is down."""
        if self._run is None:
            return
        try:
            self._run.finish(exit_code=exit_code)
        except TimeoutError:
            self.mode = "disabled"  # the closing lines would link to an incomplete page
            self._warn(
                f"wandb was not done after {_FINISH_TIMEOUT_S} s; {_record()}, and "
                f"`wandb sync {self._folder / WANDB_DIR}/*run-*` uploads the rest"
            )
        except Exception as error:
            self._give_up(error)
        self._run = None


def _mode(mode: str, wandb: Any, warn: Callable[[str], None]) -> str:
    """Resolve ``auto``; never prompts and never uses the network."""
    if mode != "auto":
        return mode
    if chosen := os.environ.get("WANDB_MODE"):
        return chosen if chosen in ("online", "offline", "disabled") else "offline"
    try:
        if wandb.login(prompt=False, verify=False):
            return "online"
    except Exception as error:
        warn(f"wandb refuses the stored key ({_line(error)}): logging offline")
        return "offline"
    warn("not logged in to wandb: logging offline (`wandb login`, or --wandb disabled to leave it out)")
    return "offline"


def _study(folder: Path) -> str | None:
    """What the dashboard groups runs by: a sweep's name, or the folder that ``--path`` gave several runs together."""
    parent = folder.resolve().parent.name
    return os.environ.get("WANDB_RUN_GROUP") or (None if parent == RunArgs.model_fields["path"].default else parent)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _record() -> str:
    return "metrics.jsonl has everything"
