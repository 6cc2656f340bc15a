"""Stages and replicas in processes that torch's launcher starts: one that dies ends all, or all are started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.engine.conftest import SMALL
from tests.faults.conftest import last_state, only_run, status
from tests.faults.process import ROOT

LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
STAGES, REPLICAS = ["--dgl", "--layer_parallel", "processes"], ["--bp", "--num_replicas", "2"]
LONG = ["--model", "VGGs", *STAGES]


def launch(words: list[str], folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, *words]
    return subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_checkpoint(folder: Path) -> None:
    while not list(folder.glob("experiments/*/checkpoints/last.ckpt")):
        time.sleep(0.1)


def worker(launcher: subprocess.Popen[str], rank: int) -> int:
    """The process of a rank, by what the launcher has told it."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    return next(int(pid) for pid in children if f"RANK={rank}".encode() in _environment(pid))


def _environment(pid: str) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


@pytest.mark.faults
@pytest.mark.timeout(240)
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("who", "words"), [("stage", STAGES), ("replica", REPLICAS)])
def test_a_killed_process_is_one_line_within_half_a_minute(
    rank: int, who: str, words: list[str], tmp_path: Path
) -> None:
    flags = [*SMALL, "--model", "VGGs", *words, "--epochs", "100000"]
    launcher = launch([str(ROOT / "main.py"), *flags], tmp_path)
    wait_for_checkpoint(tmp_path)
    begin = time.monotonic()
    os.kill(worker(launcher, rank), signal.SIGKILL)
    _, errors = launcher.communicate()
    assert time.monotonic() - begin < 30
    assert launcher.returncode == 1
    assert errors == (
        f"main.py: error: the process of {who} {rank} was killed (SIGKILL), and the run has ended; what was saved last "
        "is whole, go on from it with --resume auto\n"
    )
    assert last_state(only_run(tmp_path))["step"] > 0


@pytest.mark.faults
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("words", [STAGES, REPLICAS], ids=" ".join)
def test_a_signal_to_the_command_saves(number: int, code: int, words: list[str], tmp_path: Path) -> None:
    launcher = launch([str(ROOT / "main.py"), *SMALL, "--model", "VGGs", *words, "--epochs", "100000"], tmp_path)
    wait_for_checkpoint(tmp_path)
    launcher.send_signal(number)
    _, errors = launcher.communicate()
    assert (launcher.returncode, errors) == (code, "")
    assert status(only_run(tmp_path)) == "interrupted"


@pytest.mark.faults
@pytest.mark.timeout(240)
def test_a_launcher_that_restarts_goes_on_with_the_run(tmp_path: Path, same) -> None:
    flags = [*SMALL, *LONG, "--epochs", "40"]
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    for folder in (undisturbed, killed):
        folder.mkdir()
    assert launch([*LAUNCHER, str(ROOT / "main.py"), *flags], undisturbed).wait() == 0
    launcher = launch([*LAUNCHER, str(ROOT / "main.py"), *flags], killed)
    wait_for_checkpoint(killed)
    os.kill(worker(launcher, 1), signal.SIGKILL)
    output, _ = launcher.communicate()
    assert launcher.returncode == 0
    assert "Started again: going on with" in output
    assert status(only_run(killed)) == "done"
    same(last_state(only_run(undisturbed)), last_state(only_run(killed)))
