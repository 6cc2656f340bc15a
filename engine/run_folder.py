"""The folder that holds everything one command writes. Free of torch, so that a run can be looked up in an instant."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from consts import (
    CHECKPOINT_DIR,
    COMMAND_FILE,
    CONFIG_FILE,
    DONE,
    ENVIRONMENT_FILE,
    METRICS_FILE,
    PLOT_DIR,
    RUNNING,
    SUMMARY_FILE,
)
from schemas import HARMLESS, Args
from utils import UserError, read_json, write_json, write_text


class RunFolder:
    """Paths and small files of one run. Errors of the file system become one line.

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

    def write_start(self, args: Args, command: str, environment: Mapping[str, Any]) -> None:
        """What the run is: settings, command, versions, and a first summary."""
        import yaml

        write_text(self.path / CONFIG_FILE, yaml.safe_dump(args.model_dump(mode="json"), sort_keys=False))
        write_text(self.path / COMMAND_FILE, command + "\n")
        write_json(self.path / ENVIRONMENT_FILE, environment)
        self.update_summary(
            status=RUNNING,
            method=args.method.method,
            model=args.model.model,
            dataset=args.data.dataset,
            seed=args.optim.seed,
        )

    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` says; empty where there is none."""
        return read_json(self.path / SUMMARY_FILE) if (self.path / SUMMARY_FILE).exists() else {}

    def update_summary(self, **values: Any) -> None:
        """Add to ``summary.json``, or replace."""
        write_json(self.path / SUMMARY_FILE, self.summary() | values)

    def epochs(self) -> list[dict[str, Any]]:
        """The epoch lines of ``metrics.jsonl``."""
        path = self.path / METRICS_FILE
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [record for record in map(json.loads, lines) if record["kind"] == "epoch"]

    def forget_after(self, step: int) -> None:
        """Drop the metrics of steps that the resumed run will take again, and a line that was cut off."""
        path = self.path / METRICS_FILE
        if not path.exists():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            try:
                if not line.endswith("\n") or json.loads(line)["step"] > step:
                    continue
            except (ValueError, KeyError):
                continue
            kept.append(line)
        write_text(path, "".join(kept))


def find_unfinished(parent: Path, args: Args) -> Path | None:
    """The newest run folder under ``parent`` that is not done and was started with the settings of ``args``."""
    import yaml

    wanted = {name: value for name, value in args.flat().items() if name not in HARMLESS}
    for config in sorted(parent.glob(f"*/{CONFIG_FILE}"), key=lambda path: path.stat().st_mtime, reverse=True):
        folder = RunFolder(config.parent)
        try:
            sections = yaml.safe_load(config.read_text(encoding="utf-8"))
            before = {name: value for section in sections.values() for name, value in section.items()}
            unfinished = folder.summary().get("status") != DONE
        except (UserError, OSError, yaml.YAMLError, AttributeError):
            continue
        if wanted.get("precision") == "auto":  # the run wrote down what auto chose
            before["precision"] = "auto"
        unfinished = unfinished and any(folder.checkpoints.glob("*.ckpt"))  # else there is nothing to go on from
        if unfinished and {name: value for name, value in before.items() if name not in HARMLESS} == wanted:
            return config.parent
    return None


def is_done(path: Path) -> bool:
    """Whether the run in ``path`` reached its end."""
    return RunFolder(path).summary().get("status") == DONE
