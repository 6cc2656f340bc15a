"""What wandb is told about a run that a person or an agent started."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.wandb_log import WandbLog


def run_ids(folder: Path) -> list[str]:
    return [path.name.rpartition("-")[2] for path in (folder / "wandb").glob("offline-run-*")]


def open_and_close(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    WandbLog("offline", folder, {}, [], pytest.fail).finish()


def test_a_run_of_an_agent_keeps_the_id_that_the_agent_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "abcd1234")
    open_and_close(tmp_path / "one")
    assert run_ids(tmp_path / "one") == ["abcd1234"]


def test_a_resumed_run_keeps_its_id_whatever_the_agent_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_and_close(tmp_path / "one")
    [first] = run_ids(tmp_path / "one")
    monkeypatch.setenv("WANDB_RUN_ID", "abcd1234")
    open_and_close(tmp_path / "one")
    assert set(run_ids(tmp_path / "one")) == {first}
