"""A sweep that is stopped or killed goes on where it was, and two processes share one without doing anything twice."""

from __future__ import annotations

import json
import os
import signal
import time

from tests.sweeps.conftest import wait_for

RATES = {"values": [0.1, 0.2, 0.3, 0.4]}


def file_of(sweeper, epochs: int = 6) -> str:
    return str(sweeper.write(parameters=sweeper.vary(learning_rate=RATES, epochs={"value": epochs})))


def test_a_killed_sweep_takes_its_trials_with_it_and_goes_on(sweeper) -> None:
    process = sweeper.start(file_of(sweeper), "--workers", "2")
    wait_for(lambda: sweeper.num_epochs("trial_0001") >= 2)
    process.kill()
    process.wait()
    wait_for(lambda: not sweeper.alive())  # the trials were told by the kernel
    assert sweeper("--resume", str(sweeper.folder), "--workers", "2") == 0
    rows = sweeper.rows()
    assert sorted(row["learning_rate"] for row in rows) == ["0.1", "0.2", "0.3", "0.4"]
    assert {row["state"] for row in rows} == {"done"}
    kinds = [(name, kind) for name, kind, _ in sorted(sweeper.starts())]
    assert [kind for name, kind in kinds if name in ("trial_0000", "trial_0001")] == ["new", "resumed"] * 2
    assert [kind for name, kind in kinds if name in ("trial_0002", "trial_0003")] == ["new", "new"]
    for row in rows:  # no epoch was trained twice
        assert len((sweeper.folder / row["run"] / "metrics.jsonl").read_text().splitlines()) == 6


def test_a_signal_stops_the_trials_and_says_how_to_go_on(sweeper) -> None:
    process = sweeper.start(file_of(sweeper), "--workers", "2")
    wait_for(lambda: sweeper.num_epochs("trial_0001") >= 1)
    process.send_signal(signal.SIGTERM)
    out = process.communicate()[0].decode()
    assert process.returncode == 143
    assert f"go on with: python main.py sweep --resume {sweeper.folder.relative_to(sweeper.path)}" in out
    assert not sweeper.alive()
    assert [row["state"] for row in sweeper.rows()] == ["open", "open"]
    assert sweeper("--resume", str(sweeper.folder)) == 0
    assert {row["state"] for row in sweeper.rows()} == {"done"}


def test_two_processes_share_a_sweep(sweeper) -> None:
    hold = sweeper.path / "hold"
    hold.touch()
    first = sweeper.start(file_of(sweeper, 2), epoch_s=0)
    wait_for(lambda: any(sweeper.path.glob("out/*/starts.txt")))
    second = sweeper.start("--resume", str(sweeper.folder), epoch_s=0)
    wait_for(lambda: len(sweeper.starts()) == 2)
    hold.unlink()
    outputs = [process.communicate()[0].decode() for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    assert sorted(name for name, _, _ in sweeper.starts()) == [f"trial_{number:04d}" for number in range(4)]
    ended = [sum(f"Trial {number} done" in out for number in range(4)) for out in outputs]
    assert sum(ended) == 4 and min(ended) >= 1
    assert {row["state"] for row in sweeper.rows()} == {"done"}


def test_a_journal_cut_off_in_a_line_is_mended(sweeper) -> None:
    assert sweeper(file_of(sweeper, 1)) == 0
    journal = sweeper.folder / "study.journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":5,"wor')
    assert sweeper("--resume", str(sweeper.folder)) == 0
    assert journal.read_bytes().startswith(whole) and b"wor\n" not in journal.read_bytes()
    assert all(json.loads(line) for line in journal.read_text().splitlines())
    assert {row["state"] for row in sweeper.rows()} == {"done"}


def test_a_trial_of_another_machine_is_left_alone_while_it_is_alive(tmp_path) -> None:
    from sweeps.folder import FOREIGN_PATIENCE_S, Claim, SweepFolder

    (tmp_path / "trials").mkdir()
    claim = Claim(SweepFolder(tmp_path), 3)
    assert claim.take()
    assert not Claim(SweepFolder(tmp_path), 3).take()
    claim.release()  # as if the lock did not reach this machine
    assert not Claim(SweepFolder(tmp_path), 3).take(foreign=True)
    old = time.time() - FOREIGN_PATIENCE_S - 10
    os.utime(claim.path, (old, old))
    other = Claim(SweepFolder(tmp_path), 3)
    assert other.take(foreign=True)
    other.release()


def test_a_trial_whose_process_outlives_its_claim_is_left_alone(sweeper) -> None:
    from engine.run.folder import RunFolder
    from sweeps.file import read_sweep
    from sweeps.folder import SweepFolder
    from sweeps.study import SweepStudy

    file, folder = sweeper.write(), SweepFolder.create(sweeper.path / "out", "x")
    folder.write_start(file, 2, seed=0, command="")
    study = SweepStudy(folder, read_sweep(file))
    study.next_trial()[1].release()  # the sweep was killed, and a worker of Ray holds no claim
    run = RunFolder.create(folder.path, "trial_0000")
    with run.locked():
        trial, claim = study.next_trial()
        assert trial.number == 1 and study.next_trial() is None
    assert study.next_trial()[0].number == 0
    claim.release()
