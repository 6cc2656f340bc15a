"""Sweeps that Ray places, on a cluster of this machine; `test_ray_engine` is what can be seen without Ray."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.sweeps.conftest import ROOT, wait_for

pytest.importorskip("ray")
RAY = ("--engine", "ray", "--workers", "2")


@pytest.fixture(autouse=True)
def _here(monkeypatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # main.py is not what was started, so Ray cannot know


def file_of(sweeper, *rates: float, epochs: int = 6) -> str:
    return str(sweeper.write(parameters=sweeper.vary(learning_rate={"values": list(rates)}, epochs={"value": epochs})))


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def no_epoch_was_trained_twice(sweeper, epochs: int = 6) -> bool:
    return all(
        len((sweeper.folder / row["run"] / "metrics.jsonl").open().readlines()) == epochs for row in sweeper.rows()
    )


def test_a_sweep_has_the_table_of_a_local_one(sweeper, capfd) -> None:
    tables = []
    for words in (RAY, ("--workers", "2")):
        assert sweeper(file_of(sweeper, 0.95, 0.1, 0.3, epochs=2), *words) == 0
        tables.append(capfd.readouterr().out.split("Best:")[0].split("learning_rate\n")[-1].splitlines())
    assert [line.split()[:4] for line in tables[0]] == [line.split()[:4] for line in tables[1]]


@pytest.mark.parametrize("victim", ["worker", "trial"])
def test_a_trial_that_was_killed_goes_on_from_its_checkpoint(sweeper, victim: str) -> None:
    process = sweeper.start(file_of(sweeper, 0.1, 0.2, 0.3), *RAY)
    wait_for(lambda: sweeper.num_epochs("trial_0000") >= 2 and sweeper.num_epochs("trial_0001") >= 2)
    trial = sweeper.alive()[0]
    os.kill(parent_of(trial) if victim == "worker" else trial, signal.SIGKILL)
    out = process.communicate()[0].decode()
    assert process.returncode == 0
    assert "was killed and goes on (1 of 3 times)" in out
    assert ("Ray lost a worker" in out) == (victim == "worker")
    assert [how for _, how, _ in sweeper.starts()].count("resumed") == 1 and len(sweeper.starts()) == 4
    assert {row["state"] for row in sweeper.rows()} == {"done"}
    assert no_epoch_was_trained_twice(sweeper)


def test_a_killed_sweep_takes_its_cluster_with_it_and_goes_on(sweeper) -> None:
    process = sweeper.start(file_of(sweeper, 0.1, 0.2, 0.3), *RAY)
    wait_for(lambda: sweeper.num_epochs("trial_0001") >= 2)
    process.kill()
    process.wait()
    again = sweeper.start("--resume", str(sweeper.folder), *RAY)  # at once: the trials may still be alive
    assert again.wait() == 0
    starts = [(name, how) for name, how, _ in sorted(sweeper.starts())]
    assert starts == [
        ("trial_0000", "new"), ("trial_0000", "resumed"), ("trial_0001", "new"), ("trial_0001", "resumed"),
        ("trial_0002", "new"),
    ]  # fmt: skip
    assert {row["state"] for row in sweeper.rows()} == {"done"}
    assert no_epoch_was_trained_twice(sweeper)


def test_a_signal_stops_the_trials_and_says_how_to_go_on(sweeper) -> None:
    process = sweeper.start(file_of(sweeper, 0.1, 0.2, 0.3), *RAY)
    wait_for(lambda: sweeper.num_epochs("trial_0001") >= 1)
    process.send_signal(signal.SIGTERM)
    out = process.communicate()[0].decode()
    assert process.returncode == 143
    assert f"--resume {sweeper.folder.relative_to(sweeper.path)} --engine ray" in out
    assert not sweeper.alive()
    assert [row["state"] for row in sweeper.rows()] == ["open", "open"]
    assert sweeper("--resume", str(sweeper.folder)) == 0  # with the other engine
    assert {row["state"] for row in sweeper.rows()} == {"done"}
    assert no_epoch_was_trained_twice(sweeper)
