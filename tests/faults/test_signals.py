"""Signals at any moment: what was learned is saved, the exit code is the signal's, and nothing but a line is said."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from engine.run import checkpoint
from engine.run.folder import RunFolder
from tests.faults import inject
from tests.faults.conftest import last_state, only_run, status
from tests.faults.process import ROOT, SMALL, finish, start


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_closes_wandb_and_has_its_exit_code(number: int, code: int, tmp_path: Path) -> None:
    run = finish([*SMALL, "--dgl", "--wandb", "offline"], tmp_path, partial(inject.signal_after_step, 7, number))
    assert (run.exit_code(), run.errors()) == (code, [])
    path = only_run(tmp_path)
    assert (status(path), last_state(path)["step"]) == ("interrupted", 8)
    [folder] = (path / "wandb").glob("offline-run-*")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"exit"' in done.stdout


@pytest.mark.faults
def test_ctrl_c_in_a_terminal_reaches_wandb_too(tmp_path: Path) -> None:
    """A terminal sends it to the whole group, the process that writes wandb's file included."""
    run = finish([*SMALL, "--dgl", "--wandb", "offline"], tmp_path, partial(inject.ctrl_c_to_the_group, 7))
    assert (run.exit_code(), run.errors()) == (130, [])
    assert (status(only_run(tmp_path)), run.warnings("wandb failed")) == ("interrupted", 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_a_save_waits_for_its_end(number: int, tmp_path: Path) -> None:
    run = finish([*SMALL, "--dgl"], tmp_path, partial(inject.signal_inside_save, 2, number))
    assert run.exit_code() == (143 if number == signal.SIGTERM else 130)
    path = only_run(tmp_path)
    assert (last_state(path)["step"], last_state(path, checkpoint.PREVIOUS)["step"]) == (10, 5)
    assert finish(["--resume", str(path)], tmp_path).exit_code() == 0


def test_a_second_ctrl_c_kills(tmp_path: Path) -> None:
    run = finish([*SMALL, "--dgl"], tmp_path, inject.two_ctrl_c)
    assert run.exit_code() == -signal.SIGINT  # a shell shows 130
    path = only_run(tmp_path)
    assert last_state(path)["step"] == 5  # the first epoch's: the second Ctrl-C did not wait for another save
    assert finish(["--resume", str(path)], tmp_path).exit_code() == 0


def launch(folder: Path) -> subprocess.Popen[str]:
    folder.mkdir()
    command = [sys.executable, str(ROOT / "main.py"), *SMALL, "--dgl", "--epochs", "500"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def seconds_until_training(folder: Path) -> float:
    begin = time.monotonic()
    with launch(folder) as process:
        while not any(folder.glob("experiments/*/metrics.jsonl")):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    return time.monotonic() - begin


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_at_any_moment_from_the_first(number: int, code: int, tmp_path: Path) -> None:
    """In the first hundredths of a second, before our first line runs, a signal ends Python in its own way."""
    random_ = random.Random(0)
    start_s = seconds_until_training(tmp_path / "undisturbed")
    begun = 0
    for attempt in range(12):
        folder = tmp_path / str(attempt)
        wait_s = start_s * (random_.uniform(0, 1) if attempt < 9 else random_.uniform(1, 2))
        with launch(folder) as process:
            time.sleep(wait_s)
            process.send_signal(number)
            out, err = process.communicate(timeout=100)
        if process.returncode == -number and wait_s < 0.1 * start_s:
            continue
        assert process.returncode == code, (out, err)
        assert "Traceback" not in out + err
        if (folder / "experiments").exists():
            begun += 1
            assert status(only_run(folder)) == "interrupted"
            assert checkpoint.load_newest(only_run(folder) / "checkpoints", pytest.fail)["step"] > 0
    assert begun > 0  # else only the start was seen


def test_a_run_is_trained_by_one_process_at_a_time(tmp_path: Path) -> None:
    first = start([*SMALL, "--dgl"], tmp_path, partial(inject.pause_after_step, 7, str(tmp_path / "go")))
    while not (tmp_path / "go.waiting").exists():
        time.sleep(0.01)
    path = only_run(tmp_path)
    second = finish(["--resume", str(path)], tmp_path)
    assert second.exit_code() == 1
    assert second.errors() == [f"main.py: error: another process is training in {path}"]
    auto = finish([*SMALL, "--dgl", "--resume", "auto"], tmp_path)
    assert (auto.exit_code(), auto.warnings("no unfinished run of these settings")) == (0, 1)
    (tmp_path / "go").touch()
    assert (first.exit_code(), RunFolder(path).is_in_use()) == (0, False)
