"""Resuming, as seen from outside; `tests/faults/test_resume.py` has the matrix of methods and places."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from engine.loop.eager import Item, Worker
from engine.loop.meter import Meter
from tests.engine.conftest import SMALL
from tests.engine.test_run import without_times


def stop_after(step: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process a signal right after the optimiser's step ``step`` (from 0)."""
    take = Worker.take

    def take_and_stop(self: Worker, item: Item, meter: Meter) -> None:
        take(self, item, meter)
        if item.step == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Worker, "take", take_and_stop)


def test_ctrl_c_has_its_own_exit_code_and_auto_finds_the_run(
    run, same, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    run("--dgl")
    whole = run.state()
    with monkeypatch.context() as patch:
        stop_after(6, signal.SIGINT, patch)
        assert run("--dgl") == 130
    folder = run.last
    assert run("--bp", "--resume", "auto", "--epochs", "1") == 0  # another run: not the one to go on with
    assert "no unfinished run of these settings" in capsys.readouterr().out
    assert run("--dgl", "--resume", "auto") == 0
    assert f"going on with {folder}" in capsys.readouterr().out
    same(whole, run.state(folder))


def test_auto_starts_nothing_where_the_run_is_finished(run, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    words = ["--dgl", "--epochs", "2", "--resume", "auto"]
    assert run(*words) == 0  # there is none yet: it starts
    [folder] = run.folders
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert run(*words) == 0
    assert f"{folder} is finished already; nothing to do" in capsys.readouterr().out
    assert run.folders == [folder] and all(path.read_bytes() == content for path, content in before.items())
    assert run(*words, "--name", "again") == 0 and len(run.folders) == 2
    with monkeypatch.context() as patch:
        stop_after(3, signal.SIGINT, patch)
        assert run(*words[:-2]) == 130  # of the same settings, and not finished: that one goes on
    assert run(*words) == 0 and len(run.folders) == 3
    assert {run.summary(each)["status"] for each in run.folders} == {"done"}


def test_a_finished_run_is_left_alone(run, capsys) -> None:
    run("--dgl")
    before = (run.last / "metrics.jsonl").read_bytes()
    assert run.resume(str(run.last)) == 0
    assert "finished already" in capsys.readouterr().out
    assert (run.last / "metrics.jsonl").read_bytes() == before


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_costs_a_warning_and_no_bits(run, same, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    run("--dgl")
    whole, records = run.state(), run.records()
    with monkeypatch.context() as patch:
        stop_after(11, signal.SIGTERM, patch)
        run("--dgl")
    path = run.last / "checkpoints" / "last.ckpt"
    flip_a_bit(path)
    (run.last / "summary.json").write_text("{")  # all in it can be made anew, so it is no reason to stop
    assert run.resume(str(run.last)) == 0
    assert f"the checkpoint {path} is damaged" in capsys.readouterr().out
    same(whole, run.state())
    assert without_times(run.records()) == without_times(records)
    assert run.summary()["method"] == "dgl"


def test_two_damaged_checkpoints_are_one_line(run, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    with monkeypatch.context() as patch:
        stop_after(11, signal.SIGTERM, patch)
        run("--dgl")
    for name in ("last.ckpt", "previous.ckpt"):
        flip_a_bit(run.last / "checkpoints" / name)
    assert run.resume(str(run.last)) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert f"the checkpoint {run.last / 'checkpoints' / 'last.ckpt'} is damaged" in line


def kill_after_two_epochs(command: list[str], parent: Path) -> Path:
    """Start a run, kill -9 it when its second checkpoint is there, and return its folder."""
    threads = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums depend on how they are split
    process = subprocess.Popen(
        [*command, "--path", str(parent)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=threads
    )
    while not list(parent.glob("*/checkpoints/previous.ckpt")):
        assert process.poll() is None, "the run ended by itself"
        time.sleep(0.005)
    process.kill()
    process.wait()
    [folder] = parent.iterdir()
    return folder


@pytest.mark.slow
def test_kill_9_loses_at_most_the_epoch(run, same, tmp_path: Path) -> None:
    root = Path(__file__).parent.parent.parent
    words = ["--dgl", "--epochs", "20"]
    assert run(*words) == 0
    whole, whole_folder = run.state(), run.last
    command = [sys.executable, str(root / "main.py"), *SMALL, "--model", "VGGs", "--mlp_hidden_dim", "16", *words]
    for attempt in range(3):  # a machine that stalls may let the run end before it is killed
        folder = kill_after_two_epochs(command, tmp_path / f"killed_{attempt}")
        if run.summary(folder)["status"] == "running":
            break
    assert run.summary(folder)["status"] == "running"
    assert run.resume(str(folder)) == 0
    same(whole, run.state(folder))
    assert without_times(run.records(folder)) == without_times(run.records(whole_folder))


def test_a_run_of_an_earlier_version_with_a_retired_setting_goes_on(run, same, monkeypatch: pytest.MonkeyPatch) -> None:
    run("--dgl")
    whole = run.state()
    with monkeypatch.context() as patch:
        stop_after(6, signal.SIGINT, patch)
        assert run("--dgl") == 130
    config = run.last / "config.yaml"
    config.write_text(config.read_text().replace("run:\n", "run:\n  stage_delay: []\n"))
    assert "stage_delay" in config.read_text()
    assert run("--dgl", "--resume", "auto") == 0 and len(run.folders) == 2
    same(whole, run.state())
