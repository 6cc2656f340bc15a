"""Sweeps whose trials are a formula."""

from __future__ import annotations

import contextlib
import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from loguru import logger

import main

ROOT = Path(__file__).parents[2]
FAKE = Path(__file__).with_name("fake_main.py")


class Sweeper:
    """Writes sweep files, runs them, and looks at what they left."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / "sweep.yaml"

    def write(self, **changes: Any) -> Path:
        """A grid over three learning rates, with ``changes``; None takes a key away."""
        content = {
            "program": "main.py", "method": "grid", "metric": {"name": "test/accuracy", "goal": "maximize"},
            "parameters": {
                "learning_rate": {"values": [0.1, 0.2, 0.3]}, "epochs": {"value": 2}, "dataset": {"value": "digits"},
            },
        } | changes  # fmt: skip
        self.file.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
        return self.file

    def vary(self, **parameters: Any) -> dict[str, Any]:
        """Parameters for `write`: two epochs of ``digits``, and what is given."""
        return {"epochs": {"value": 2}, "dataset": {"value": "digits"}} | parameters

    def __call__(self, *words: str) -> int:
        return main.main(["sweep", *words, *([] if "--resume" in words else ["--path", str(self.path / "out")])])

    def start(self, *words: str, epoch_s: float = 0.3) -> subprocess.Popen[bytes]:
        """A sweep in a process of its own, which can be killed."""
        code = (
            f"import sys, pathlib; sys.path.insert(0, {str(ROOT)!r}); import main, sweeps.trial; "
            f"sweeps.trial.MAIN = pathlib.Path({str(FAKE)!r}); sys.exit(main.main(['sweep'] + sys.argv[1:]))"
        )
        command = [sys.executable, "-c", code, *words, *([] if "--resume" in words else ["--path", "out"])]
        environment = os.environ | {"FAKE_EPOCH_S": str(epoch_s), "PYTHONPATH": str(ROOT)}  # Ray's workers import us
        return subprocess.Popen(command, cwd=self.path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    @property
    def folders(self) -> list[Path]:
        return sorted((self.path / "out").iterdir()) if (self.path / "out").exists() else []

    @property
    def folder(self) -> Path:
        [folder] = self.folders
        return folder

    def num_epochs(self, name: str) -> int:
        """How many epochs a trial has trained."""
        paths = list(self.path.glob(f"out/*/*_{name}/metrics.jsonl"))
        return len(paths[0].read_text().splitlines()) if paths else 0

    def alive(self) -> list[int]:
        """Processes of trials of this sweep."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words, cwd = path.read_bytes(), os.readlink(path.parent / "cwd")
                ours = bytes(FAKE) in words and cwd == str(self.path) and b"--no_progress_bar" in words
                found += [int(path.parent.name)] if ours else []
        return found

    def rows(self) -> list[dict[str, str]]:
        with (self.folder / "trials.csv").open() as stream:
            return list(csv.DictReader(stream))

    def starts(self) -> list[list[str]]:
        """Name, ``new`` or ``resumed``, and learning rate of every start of a trial."""
        path = self.folder / "starts.txt"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition: Callable[[], object]) -> None:
    while not condition():  # the test's own time limit ends it
        time.sleep(0.02)


@pytest.fixture
def sweeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweeper:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sweeps.trial.MAIN", FAKE)
    monkeypatch.setattr("sweeps.runner.PAUSE_S", 0.02)
    yield Sweeper(tmp_path)
    logger.remove()


@pytest.fixture
def refused(sweeper: Sweeper, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line with which a sweep file is refused; nothing is written."""

    def refuse(*words: str, **changes: Any) -> str:
        code = sweeper(str(sweeper.write(**changes)), *words)
        assert code == 2
        assert sweeper.folders == []
        [line] = capsys.readouterr().err.splitlines()
        return line

    return refuse
