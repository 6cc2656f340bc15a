"""What the fault tests share: runs in real processes, and what they left."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.run import checkpoint
from engine.run.folder import RunFolder
from tests.engine.conftest import same as same  # the fixture, under its own name
from tests.faults import process

os.environ["PYTHONPATH"] = str(process.ROOT)  # for the server that runs are forked from


def only_run(folder: Path) -> Path:
    """The one run folder under ``folder``."""
    [path] = (folder / "experiments").iterdir()
    return path


def last_state(path: Path, name: str = checkpoint.LAST) -> dict:
    return checkpoint.load(path / "checkpoints" / name)


def status(path: Path) -> str:
    return RunFolder(path).summary()["status"]


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The run folder of an undisturbed run with some flags; each is made once."""
    known: dict[tuple[str, ...], Path] = {}

    def get(*words: str) -> Path:
        if words not in known:
            folder = tmp_path_factory.mktemp("whole")
            assert process.finish(process.small([*words]), folder).exit_code() == 0
            known[words] = only_run(folder)
        return known[words]

    return get
