"""Sweeps without a server: one file in wandb's format, many runs, one study that survives a kill.

A trial is the command that a person would type, in a process of its own, so every trial leaves a normal run folder.
`wandb sweep` and `wandb agent` take the same files. Optuna searches; it is imported when a sweep begins. An engine
starts the trials: here, or with Ray on the GPUs and machines of a cluster.

wandb's own controller needs its server, and Hydra's multirun another grammar of flags. `ray_engine` says why Ray
places trials and Ray Tune does not search.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeps.check import check
from sweeps.engines import open_engine
from sweeps.file import SweepFile, read_sweep
from sweeps.folder import SweepFolder
from utils import Interrupted, UsageError, UserError, did_you_mean

__all__ = ["sweep"]


def sweep(options: Mapping[str, Any], command: str) -> str:
    """Run a sweep, or go on with one, and return the table of its trials.

    Args:
        options: what ``main.py sweep`` was given: ``file`` or ``resume``, ``trials``, ``workers``, ``engine``,
            ``seed``, ``path``, ``progress_bar``.
        command: the command as typed, for the record.

    Raises:
        UsageError: the file makes no sense, or the engine is not installed; nothing was written.
        UserError: three trials in a row failed, or the disk or the engine refuses.
        Interrupted: by a signal; ``--resume`` goes on.
    """
    engine = open_engine(options["engine"], options["workers"])
    folder, file = _resume(options) if options["resume"] else _start(options, command)
    from loguru import logger  # all this is imported only now, so that a refusal answers at once

    from engine.run.console import log_to_file, log_to_terminal
    from engine.run.signals import StopRequest
    from sweeps.results import summarise
    from sweeps.runner import Runner
    from sweeps.study import SweepStudy

    log_to_terminal()
    log_to_file(folder.path)
    study = SweepStudy(folder, file)
    try:
        with engine, StopRequest() as stop:  # in this order, because Ray has a handler of its own for SIGTERM
            Runner(study, engine, options["workers"], stop, progress_bar=options["progress_bar"]).run()
    except Interrupted:
        same = "" if options["engine"] == "local" else f" --engine {options['engine']}"
        logger.warning(f"Stopped; go on with: python main.py sweep --resume {folder.path}{same}")
        raise
    finally:
        table = summarise(study)
    return table


def _start(options: Mapping[str, Any], command: str) -> tuple[SweepFolder, SweepFile]:
    path = Path(options["file"])
    file = read_sweep(path)
    check(file, options["engine"])
    wanted, cap, points = options["trials"], file.spec.run_cap, file.grid_size
    if wanted is None and cap is None and points is None:
        raise UsageError(f"--trials is missing: {path} searches with method {file.spec.method}, which has no end")
    num_trials = min(value for value in (wanted or cap or points, points) if value is not None)
    folder = SweepFolder.create(Path(options["path"]), file.spec.name or path.stem)
    folder.write_start(path, num_trials, options["seed"] or 0, command)
    return folder, file


def _resume(options: Mapping[str, Any]) -> tuple[SweepFolder, SweepFile]:
    folder = SweepFolder(Path(options["resume"]))
    if not folder.exists():
        near = [str(path.parent) for path in folder.path.parent.glob("*/sweep.json")]
        raise UsageError(f"--resume {folder.path}: no sweep there{did_you_mean(str(folder.path), near)}")
    file = read_sweep(folder.sweep_file)
    if options["trials"] is not None:
        if file.grid_size is not None and options["trials"] > file.grid_size:
            raise UsageError(f"--trials {options['trials']}: the grid has {file.grid_size} points")
        folder.set_num_trials(options["trials"])
    try:
        check(file, options["engine"])
    except UsageError as error:
        raise UserError(f"the sweep cannot go on: {error}") from None
    return folder, file
