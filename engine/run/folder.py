"""The folder that holds everything one command writes. Does not import torch, so that looking up a run is fast."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cli import args_of_run
from consts import (
    CHECKPOINT_DIR,
    CODE_DIR,
    COMMAND_FILE,
    CONFIG_FILE,
    DATA_FILE,
    DATASETS,
    DONE,
    ENVIRONMENT_FILE,
    METRICS_FILE,
    PLOT_DIR,
    RUNNING,
    SUMMARY_FILE,
)
from schemas import HARMLESS, Args
from sections.files import source_of
from utils import UserError, atomic_write, read_json, write_json, write_text


class RunFolder:
    """Paths and small files of one run. File-system errors are reported in one line.

    Attributes:
        path: the folder.
        checkpoints: where its checkpoints are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / CHECKPOINT_DIR

    @classmethod
    def create(cls, parent: Path, name: str) -> RunFolder:
        """Make ``<parent>/<date>_<time>[_name]``, with a counter where it exists.

        Raises:
            UserError: nothing can be written there.
        """
        stem = time.strftime("%Y-%m-%d_%H-%M-%S") + (f"_{name}" if name else "")
        try:
            parent.mkdir(parents=True, exist_ok=True)
            path, count = parent / stem, 1
            while True:
                try:
                    path.mkdir()
                    break
                except FileExistsError:
                    count += 1
                    path = parent / f"{stem}_{count}"
            (path / CHECKPOINT_DIR).mkdir()
            (path / PLOT_DIR).mkdir()
        except OSError as error:
            raise UserError(f"--path {parent}: cannot make a run folder there: {error.strerror}") from None
        return cls(path)

    def write_start(self, args: Args, command: str, environment: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        """Write settings, command, versions, facts of the data, a copy of the user's own code, and a first summary."""
        import yaml

        with self.writing(CONFIG_FILE):
            write_text(self.path / CONFIG_FILE, yaml.safe_dump(args.model_dump(mode="json"), sort_keys=False))
        with self.writing(COMMAND_FILE):
            write_text(self.path / COMMAND_FILE, command.encode(errors="backslashreplace").decode() + "\n")
        with self.writing(ENVIRONMENT_FILE):
            write_json(self.path / ENVIRONMENT_FILE, environment)
        with self.writing(DATA_FILE):
            write_json(self.path / DATA_FILE, data)
        for name, file in args.code().items():
            copy = self.path / CODE_DIR / name / file.name
            with self.writing(str(copy.relative_to(self.path))):
                copy.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(copy) as stream:
                    stream.write(source_of(file))
        self.begin_summary(args)

    def begin_summary(self, args: Args) -> None:
        """Write ``summary.json`` as it is from the start of a run on."""
        self.update_summary(status=RUNNING, **args.labels(), seed=args.optim.seed)

    def summary(self) -> dict[str, Any]:
        """The contents of ``summary.json``; empty if it is missing or damaged, since it can be recomputed."""
        try:
            content = read_json(self.path / SUMMARY_FILE)
        except UserError:
            return {}
        return content if isinstance(content, dict) else {}

    def update_summary(self, **values: Any) -> None:
        """Add to ``summary.json``, or replace.

        Raises:
            UserError: it cannot be written.
        """
        with self.writing(SUMMARY_FILE):
            write_json(self.path / SUMMARY_FILE, self.summary() | values)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Report in one line that the file ``name`` cannot be written.

        Raises:
            UserError: in place of an OSError inside the block.
        """
        try:
            yield
        except OSError as error:
            raise UserError(f"cannot write {self.path / name}: {error.strerror}") from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder against other training processes; the system unlocks it however this one ends.

        Raises:
            UserError: another process trains in it.
        """
        with self.writing(COMMAND_FILE):
            stream = (self.path / COMMAND_FILE).open("a")
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EACCES):  # else a file system without locks
                    raise UserError(f"another process is training in {self.path}") from None
            yield

    def is_in_use(self) -> bool:
        """Whether another process trains in this folder."""
        try:
            with self.locked():
                return False
        except UserError:
            return True

    def _records(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The lines of ``metrics.jsonl``, as text and parsed, without incomplete ones."""
        path = self.path / METRICS_FILE
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        for line in text.splitlines(keepends=True):
            with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
                record = json.loads(line)
                if line.endswith("\n") and isinstance(record["step"], int) and isinstance(record["kind"], str):
                    yield line, record

    def epochs(self) -> list[dict[str, Any]]:
        """The epoch lines of ``metrics.jsonl``."""
        return [record for _, record in self._records() if record["kind"] == "epoch"]

    def forget_after(self, step: int) -> None:
        """Drop the metrics of steps that the resumed run will repeat, and an incomplete line.

        Raises:
            UserError: the file cannot be read or written.
        """
        with self.writing(METRICS_FILE):
            kept = "".join(line for line, record in self._records() if record["step"] <= step)
            write_text(self.path / METRICS_FILE, kept)


def find_unfinished(parent: Path, args: Args, *, or_done: bool = False) -> Path | None:
    """The newest run folder under ``parent`` with the settings of ``args`` that is neither done nor in use.

    With ``or_done``, where there is none, the newest of that name that is done.
    """
    wanted, done = _told_apart(args), None
    for config in sorted(parent.glob(f"*/{CONFIG_FILE}"), key=lambda path: path.stat().st_mtime, reverse=True):
        folder = RunFolder(config.parent)
        try:
            run = args_of_run(folder.path)
        except UserError:  # not a run folder, damaged, or with settings that are gone
            continue
        before = _told_apart(run)
        if wanted.get("precision") == "auto" and before["precision"] in ("fp32", "bf16"):  # what auto may have chosen
            before["precision"] = "auto"
        if before != wanted:
            continue
        if is_done(folder.path):
            done = done or (folder.path if run.run.name == args.run.name else None)
        elif any(folder.checkpoints.glob("*.ckpt")) and not folder.is_in_use():  # without one nothing is to be resumed
            return folder.path
    return done if or_done else None


def _told_apart(args: Args) -> dict[str, Any]:
    """The settings that make two runs different ones.

    Of the user's own code that is its content, not where it lies; of the user's own data it is where they lie.
    """
    told = {name: value for name, value in (args.flat() | args.labels()).items() if name not in HARMLESS}
    is_own = DATASETS[args.data.dataset].is_own
    return told | ({"data_dir": Path(args.data.data_dir).expanduser().absolute()} if is_own else {})


def is_done(path: Path) -> bool:
    """Whether the run in ``path`` reached its end."""
    return RunFolder(path).summary().get("status") == DONE
