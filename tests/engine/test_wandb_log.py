"""What wandb is told about a run that a person, a sweep or an agent started."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from loguru import logger

import cli
from engine.run.wandb_log import WandbLog
from schemas import Args

VARIABLES = ("WANDB_PROJECT", "WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_TAGS", "WANDB_RUN_ID")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def args_of(*words: str) -> Args:
    args = cli.parse(["--dataset", "digits", "--model", "VGGs", "--wandb", "offline", *words]).args
    assert args is not None
    return args


def run_ids(folder: Path) -> list[str]:
    """From ``offline-run-DATE_TIME-ID``, which gets a counter where two start in one second."""
    return [path.name.split("-")[3] for path in (folder / "wandb").glob("offline-run-*")]


def open_and_close(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    WandbLog(args_of(), folder, pytest.fail).finish()


def asked(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> dict[str, object]:
    """What wandb is started with."""
    found: dict[str, object] = {}
    monkeypatch.setattr("wandb.init", lambda **given: found.update(given) or MagicMock())
    WandbLog(args_of(*words), folder, pytest.fail).finish()
    return found


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


def test_runs_that_differ_in_the_seed_are_one_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [
        asked(tmp_path, monkeypatch, *words)["group"]
        for words in (["--dgl"], ["--dgl", "--seed", "1"], ["--bp", "--path", "experiments/studies/heads"])
    ]
    assert groups == ["dgl VGGs digits", "dgl VGGs digits", "bp VGGs digits"]


def test_the_trials_of_a_sweep_are_one_group_whatever_their_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for method in ("--dgl", "--bp"):
        words = ("--path", "out/2026-01-01_sweep_rates", "--name", "trial_0001", method)
        assert asked(tmp_path, monkeypatch, *words)["group"] == "2026-01-01_sweep_rates"


@pytest.mark.parametrize(
    ("key", "variable", "flag", "otherwise"),
    [
        ("project", "WANDB_PROJECT", "--wandb_project", "beyond-backprop"),
        ("group", "WANDB_RUN_GROUP", "--wandb_group", "bp VGGs digits"),
    ],
)
def test_a_flag_comes_before_the_variable_and_the_variable_before_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, variable: str, flag: str, otherwise: str
) -> None:
    assert asked(tmp_path, monkeypatch)[key] == otherwise
    monkeypatch.setenv(variable, "from outside")
    assert asked(tmp_path, monkeypatch)[key] == "from outside"
    assert asked(tmp_path, monkeypatch, flag, "typed")[key] == "typed"


def test_the_tags_and_the_name_of_the_environment_are_honoured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(tmp_path, monkeypatch)["tags"] == ["bp", "VGGs", "digits"]
    assert asked(tmp_path, monkeypatch)["name"] == tmp_path.name
    monkeypatch.setenv("WANDB_TAGS", "mine, bp,,other")
    monkeypatch.setenv("WANDB_NAME", "called")
    found = asked(tmp_path, monkeypatch, "--path", "experiments/studies/heads")
    assert found["tags"] == ["bp", "VGGs", "digits", "heads", "mine", "other"]
    assert found["name"] == "called"


def test_only_settings_with_an_effect_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = asked(tmp_path, monkeypatch, "--optimizer_type", "Adam")["config"]
    assert {"learning_rate", "epochs", "seed", "method"} <= set(config)
    assert not {"momentum", "lr_gamma", "curriculum_start", "num_stages", "pred_aux_type", "async_buffer"} & set(config)
    assert {"momentum", "pred_aux_type"} <= set(asked(tmp_path, monkeypatch, "--dgl")["config"])


def test_the_summary_and_the_lines_of_the_log_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = MagicMock()
    monkeypatch.setattr("wandb.init", lambda **given: run)
    log = WandbLog(args_of(), tmp_path, pytest.fail)
    logger.info("a line of the run")
    log.finish(0, {"status": "done", "best_epoch": 3, "block_test_accuracy": [1.0, 2.0]})
    logger.info("after the end")
    [line] = [call.args[0] for call in run.write_logs.call_args_list]
    assert line.endswith("| a line of the run\n")
    run.summary.update.assert_called_once_with({"status": "done", "best_epoch": 3})


def test_a_line_that_cannot_be_sent_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, warnings = MagicMock(), []
    run.write_logs.side_effect = run.log.side_effect = ConnectionResetError("gone")
    monkeypatch.setattr("wandb.init", lambda **given: run)
    log = WandbLog(args_of(), tmp_path, warnings.append)
    logger.info("a line of the run")
    assert warnings == []
    for _ in range(2):
        log.log("step", {"step": 1, "train/loss": 1.0})
    log.finish()
    assert warnings == ["wandb failed (gone): going on without it; metrics.jsonl has everything"]
    assert log.address == ""


def test_a_disabled_wandb_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import of it fails
    WandbLog(args_of("--wandb", "disabled"), tmp_path, pytest.fail).finish()
    warnings: list[str] = []
    WandbLog(args_of(), tmp_path, warnings.append).finish()
    [line] = warnings
    assert line.startswith("wandb failed (") and "wandb" in line.partition("(")[2]
