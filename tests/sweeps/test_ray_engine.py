"""The engine `ray` with a cluster on paper: what it asks Ray for, and what it makes of Ray's answers."""

from __future__ import annotations

import sys

import pytest

from sweeps.ray_engine import share
from tests.sweeps import fake_ray
from tests.sweeps.fake_ray import FakeRay


@pytest.fixture
def cluster(monkeypatch) -> FakeRay:
    fake = FakeRay([{"CPU": 8.0}])
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return fake


def test_without_ray_the_engine_is_refused_in_one_line(refused, monkeypatch) -> None:
    monkeypatch.setattr("sweeps.ray_engine.importlib.util.find_spec", lambda name: None)
    line = refused("--engine", "ray")
    assert line.startswith("main.py: error: --engine ray needs Ray: pip install 'ray>=") and "extra [ray]" in line


@pytest.mark.parametrize(
    ("nodes", "num_workers", "on_cpu", "on_gpu"),
    [
        ([{"CPU": 8}], 1, (8, 0), (8, 0)),
        ([{"CPU": 8}], 3, (2, 0), (2, 0)),
        ([{"CPU": 2}], 5, (1, 0), (1, 0)),
        ([{"CPU": 16}, {"CPU": 16}], 1, (16, 0), (16, 0)),  # never more than one machine has
        ([{"CPU": 16}, {"CPU": 16}], 3, (8, 0), (8, 0)),
        ([{"CPU": 32, "GPU": 4}], 4, (8, 0), (8, 1)),
        ([{"CPU": 32, "GPU": 4}], 2, (16, 0), (16, 1)),
        ([{"CPU": 32, "GPU": 2}], 4, (8, 0), (8, 0.5)),
        ([{"CPU": 32, "GPU": 2}], 5, (6, 0), (6, 0.3333)),  # three times this is below one
        ([{"CPU": 64}, {"CPU": 8, "GPU": 1}], 2, (32, 0), (4, 0.5)),  # a machine without a GPU does not count
        ([{"CPU": 4, "GPU": 1}, {"CPU": 64, "GPU": 1}], 2, (32, 0), (4, 1)),
    ],
)
def test_as_many_trials_as_workers_find_room(nodes, num_workers, on_cpu, on_gpu) -> None:
    assert share(nodes, num_workers, on_gpu=False) == on_cpu
    assert share(nodes, num_workers, on_gpu=True) == on_gpu


def test_a_sweep_with_ray_ends_as_one_without(sweeper, cluster) -> None:
    file = str(sweeper.write(parameters=sweeper.vary(learning_rate={"values": [0.95, 0.1, 0.3]})))
    assert sweeper(file, "--workers", "3", "--engine", "ray") == 0
    rows = [(row["learning_rate"], row["state"], row["message"]) for row in sweeper.rows()]
    message = "the loss is not finite; lower --learning_rate (exit code 1)"
    assert rows == [("0.1", "done", ""), ("0.3", "done", ""), ("0.95", "failed", message)]
    assert cluster.options == [{"num_cpus": 2, "num_gpus": 0}] * 3
    assert cluster.inits[0][0] == "local" and not cluster.is_up


@pytest.mark.parametrize(("device", "num_gpus"), [("auto", 1), ("cuda:0", 1), ("cpu", 0)])
def test_a_trial_has_a_gpu_unless_its_device_is_the_cpu(sweeper, cluster, device: str, num_gpus: int) -> None:
    cluster.nodes()[1]["Resources"]["GPU"] = 1.0
    parameters = sweeper.vary(learning_rate={"values": [0.1]}, seed={"values": [1, 2]}, device={"value": device})
    assert sweeper(str(sweeper.write(parameters=parameters)), "--engine", "ray") == 0
    assert cluster.options == [{"num_cpus": 8, "num_gpus": num_gpus}] * 2


def test_a_second_gpu_is_refused_because_a_trial_sees_only_its_own(refused, sweeper, cluster) -> None:
    devices = {"values": ["cuda:0", "cuda:1"]}
    assert "--device cuda:1: with --engine ray every trial sees one GPU" in refused(
        "--engine", "ray", parameters=sweeper.vary(device=devices)
    )


def test_a_running_cluster_is_taken_as_it_is(sweeper, cluster, monkeypatch, capsys) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert sweeper(str(sweeper.write()), "--engine", "ray") == 0
    [(address, settings)] = cluster.inits
    assert address == "head:6379" and not {"num_cpus", "object_store_memory"} & settings
    monkeypatch.setenv("RAY_ADDRESS", "nobody:6379")
    assert sweeper("--resume", str(sweeper.folder), "--engine", "ray") == 1
    assert capsys.readouterr().err == "main.py: error: no Ray cluster at nobody:6379: Could not connect.\n"


@pytest.mark.parametrize("kind", ["RayActorError", "OutOfMemoryError"])
def test_a_trial_whose_worker_died_goes_on_from_its_checkpoint(sweeper, cluster, monkeypatch, capsys, kind) -> None:
    monkeypatch.setenv("FAKE_EPOCH_S", "0.1")
    cluster.errors = [getattr(fake_ray, kind)("It died.\nMore of it"), fake_ray.ActorUnavailableError("not now")]
    cluster.can_fail = lambda: sweeper.num_epochs("trial_0000") >= 1
    parameters = sweeper.vary(learning_rate={"values": [0.1, 0.2]}, epochs={"value": 4})
    assert sweeper(str(sweeper.write(parameters=parameters)), "--engine", "ray") == 0
    assert [(name, how) for name, how, _ in sweeper.starts()] == [
        ("trial_0000", "new"), ("trial_0000", "resumed"), ("trial_0001", "new"),
    ]  # fmt: skip
    assert {row["state"] for row in sweeper.rows()} == {"done"} and sweeper.num_epochs("trial_0000") == 4
    out = capsys.readouterr().out
    assert "Ray lost a worker: It died.\n" in out and "Trial 0 was killed and goes on (1 of 3 times)" in out


def test_a_trial_whose_workers_always_die_is_a_failure(sweeper, cluster) -> None:
    cluster.errors = [fake_ray.RayActorError("It died.") for _ in range(4)]
    parameters = sweeper.vary(learning_rate={"values": [0.1, 0.2]})
    assert sweeper(str(sweeper.write(parameters=parameters)), "--engine", "ray") == 0
    rows = {row["learning_rate"]: row for row in sweeper.rows()}
    assert [rows["0.1"]["state"], rows["0.2"]["state"]] == ["failed", "done"]
    assert "killed by SIGKILL" in rows["0.1"]["message"]


def test_a_machine_that_does_not_see_the_folder_ends_the_sweep(sweeper, cluster, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sweeps.ray_engine.os.chdir", lambda folder: (folder / "nowhere").read_text())
    assert sweeper(str(sweeper.write()), "--engine", "ray") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("main.py: error: Ray cannot start a trial: ") and "nowhere" in line
    assert not cluster.is_up
