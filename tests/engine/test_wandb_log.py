"""What wandb is told about a run that a person or an agent started."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import MagicMock

import pytest

from engine.run.wandb_log import WandbLog


def run_ids(folder: Path) -> list[str]:
    """From ``offline-run-DATE_TIME-ID``, which gets a counter where two start in one second."""
    return [path.name.split("-")[3] for path in (folder / "wandb").glob("offline-run-*")]


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


@pytest.mark.parametrize(
    ("folder", "variable", "group"),
    [
        ("experiments/run", None, None),
        ("experiments/studies/heads/run", None, "heads"),
        ("experiments/run", "a_sweep", "a_sweep"),
    ],
)
def test_runs_of_a_study_are_one_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, variable: str | None, group: str | None
) -> None:
    monkeypatch.delenv("WANDB_RUN_GROUP", raising=False)
    if variable is not None:
        monkeypatch.setenv("WANDB_RUN_GROUP", variable)
    asked: dict[str, object] = {}
    monkeypatch.setattr("wandb.init", lambda **words: asked.update(words) or MagicMock())
    (tmp_path / folder).mkdir(parents=True)
    WandbLog("offline", tmp_path / folder, {}, [], pytest.fail).finish()
    assert asked["group"] == group
