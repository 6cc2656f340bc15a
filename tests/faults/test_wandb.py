"""wandb in trouble: training finishes, exits with 0, and says it once; with a server on loopback, a killed service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from engine.run.dashboard import without_repeats
from tests.faults import inject
from tests.faults.conftest import only_run, status
from tests.faults.fake_wandb import FakeWandb
from tests.faults.process import SMALL, Run, finish, start

pytestmark = pytest.mark.faults
KEY = "c0ffee" * 7
NUM_LINES = 12  # nine lines of steps and three of epochs


def environment(folder: Path, fake: FakeWandb, **more: str) -> dict[str, str]:
    """A user with a key for the fake server and no other files of wandb's."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    return {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": fake.url, "HOME": str(home), "NETRC": str(home / "none")} | more


def assert_done_with_one_warning(run: Run, folder: Path, words: str) -> None:
    assert (run.exit_code(), run.errors()) == (0, [])
    [warning] = [line for line in run.out.read_text().splitlines() if "wandb" in line and "| wandb: " not in line]
    assert words in warning
    assert status(only_run(folder)) == "done"
    assert len((only_run(folder) / "metrics.jsonl").read_text().splitlines()) == NUM_LINES


def test_a_server_that_works_gets_every_line_and_a_resumed_run_keeps_its_id(tmp_path: Path) -> None:
    with FakeWandb() as fake:
        env = environment(tmp_path, fake)
        words = [*SMALL, "--dgl", "--wandb", "online"]
        first = finish(words, tmp_path, partial(inject.signal_after_step, 7, signal.SIGTERM), env)
        assert first.exit_code() == 143
        resumed = finish(["--resume", str(only_run(tmp_path))], tmp_path, env=env)
        assert (resumed.exit_code(), resumed.errors()) == (0, [])
        [name] = {call["name"] for call in fake.posts("UpsertBucket")}
        assert name == (only_run(tmp_path) / "wandb" / "id.txt").read_text()
        steps = [line["step"] for line in fake.history()]
        assert sorted(set(steps)) == [2, 4, 5, 6, 8, 10, 12, 14, 15]
        assert len(steps) == NUM_LINES


def test_an_offline_run_is_brought_to_the_server_whole(tmp_path: Path) -> None:
    words = ["--dgl", "--ssl", "--diagnostics", "filters,confusion,probes", "--wandb", "offline"]
    with FakeWandb() as fake:
        env = environment(tmp_path, fake)
        run = finish([*SMALL, *words], tmp_path, env=env)
        assert (run.exit_code(), run.errors(), fake.bodies) == (0, [], [])
        [folder] = only_run(tmp_path).glob("wandb/offline-run-*")
        command = [str(Path(sys.executable).with_name("wandb")), "sync", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | env)
        assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (only_run(tmp_path) / "metrics.jsonl").read_text().splitlines()]
    arrived = [(line["step"], name, value) for line in fake.history() for name, value in line.items()]
    for record in records:
        for name, value in without_repeats(record.pop("kind"), record).items():
            if "/" in name:
                assert (record["step"], name, value) in arrived
    [name] = {call["name"] for call in fake.posts("UpsertBucket")}
    assert name == (only_run(tmp_path) / "wandb" / "id.txt").read_text()
    config = json.loads(next(call["config"] for call in fake.posts("UpsertBucket") if call.get("config")))
    assert (config["method"]["value"], config["ssl"]["value"]) == ("dgl", True)
    for begin in ("media/images/filters", "media/images/confusion", "media/images/reconstructions_block_00"):
        assert any(name.startswith(begin) for name in fake.files), (begin, fake.files)
    assert "Epoch 3/3" in fake.console()


def test_no_login(tmp_path: Path) -> None:
    with FakeWandb() as fake:
        env = environment(tmp_path, fake, WANDB_API_KEY="")
        run = finish([*SMALL, "--dgl", "--wandb", "auto"], tmp_path, env=env)
        assert_done_with_one_warning(run, tmp_path, "not logged in to wandb: logging offline")
        assert fake.bodies == []


@pytest.mark.parametrize(("mode", "words"), [("auto", "refuses the stored key"), ("online", "cannot be reached")])
def test_a_bad_key(mode: str, words: str, tmp_path: Path) -> None:
    with FakeWandb() as fake:
        env = environment(tmp_path, fake, WANDB_API_KEY="short")
        run = finish([*SMALL, "--dgl", "--wandb", mode], tmp_path, env=env)
    assert_done_with_one_warning(run, tmp_path, words)
    assert list((only_run(tmp_path) / "wandb").glob("offline-run-*"))


@pytest.mark.parametrize("mode", ["gone", "hang", "refuse", "fail"])
def test_a_key_and_no_server_to_speak_to(mode: str, tmp_path: Path) -> None:
    with FakeWandb("ok" if mode == "gone" else mode) as fake:
        if mode == "gone":
            fake.go_away()
        env = environment(tmp_path, fake)
        run = finish([*SMALL, "--dgl", "--wandb", "online"], tmp_path, inject.short_wandb_timeouts, env)
    assert_done_with_one_warning(run, tmp_path, "wandb cannot be reached")
    [offline] = (only_run(tmp_path) / "wandb").glob("offline-run-*")
    assert any(path.stat().st_size > 1000 for path in offline.glob("*.wandb"))


def trouble_at_step_7(folder: Path, mode: str, trouble: Callable[[FakeWandb, Run], None]) -> Run:
    """A run that waits after a step until ``trouble`` has happened."""
    with FakeWandb() as fake:
        fault = partial(inject.pause_with_short_timeouts, 7, str(folder / "go"))
        run = start([*SMALL, "--dgl", "--wandb", mode], folder, fault, environment(folder, fake))
        while not (folder / "go.waiting").exists():
            time.sleep(0.01)
        trouble(fake, run)
        (folder / "go").touch()
        run.exit_code()
    return run


def hang(fake: FakeWandb, run: Run) -> None:
    fake.mode = "hang"


@pytest.mark.parametrize("trouble", [lambda fake, run: fake.go_away(), hang], ids=["gone", "hangs"])
def test_the_network_is_lost_on_the_way(trouble: Callable[[FakeWandb, Run], None], tmp_path: Path) -> None:
    run = trouble_at_step_7(tmp_path, "online", trouble)
    assert_done_with_one_warning(run, tmp_path, "wandb was not done after")
    assert run.warnings("wandb: see http") == 0


def kill_service(fake: FakeWandb, run: Run) -> None:
    children = Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children").read_text().split()
    assert children
    for pid in children:
        os.kill(int(pid), signal.SIGKILL)


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_the_service_is_killed(mode: str, tmp_path: Path) -> None:
    run = trouble_at_step_7(tmp_path, mode, kill_service)
    # "Connection lost", or what the system says where it is the first to notice.
    assert_done_with_one_warning(run, tmp_path, "going on without it")
    assert run.warnings("wandb failed (") == 1


def test_a_setting_that_wandb_does_not_know(tmp_path: Path) -> None:
    with FakeWandb() as fake:
        env = environment(tmp_path, fake, WANDB_CONSOLE="bogus")
        run = finish([*SMALL, "--dgl", "--wandb", "offline"], tmp_path, env=env)
    assert_done_with_one_warning(run, tmp_path, "wandb failed (")


def test_a_signal_does_not_wait_for_a_server_that_hangs(tmp_path: Path) -> None:
    with FakeWandb() as fake:
        fault = partial(inject.pause_with_short_timeouts, 7, str(tmp_path / "go"))
        run = start([*SMALL, "--dgl", "--wandb", "online"], tmp_path, fault, environment(tmp_path, fake))
        while not (tmp_path / "go.waiting").exists():
            time.sleep(0.01)
        fake.mode = "hang"
        os.kill(run.process.pid, signal.SIGTERM)
        (tmp_path / "go").touch()
        assert (run.exit_code(), run.errors()) == (143, [])
    assert (status(only_run(tmp_path)), run.warnings("wandb was not done after")) == ("interrupted", 1)
