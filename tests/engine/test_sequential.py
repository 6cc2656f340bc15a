"""Phases of a run: metrics, the best epoch, the learning rate, and resuming in each of them."""

from __future__ import annotations

import pytest
import torch

import main
from engine.loop.schedule import factor
from schemas import OptimArgs
from tests.engine.test_run import without_times
from tests.engine.test_threads import after

WORDS = ["--dgl", "--sequential", "--dropout_prob", "0.3"]  # three epochs, three blocks


def test_only_what_has_been_trained_is_reported(run, capsys) -> None:
    assert run(*WORDS) == 0
    out = capsys.readouterr().out
    assert "Phase 2/3: block_01 learns" in out and "| block_01 | Train loss=" in out
    epochs = [record for record in run.records() if record["kind"] == "epoch"]
    for phase, record in enumerate(epochs):
        trained = {name for name in record if name.startswith("train/block_")}
        assert trained == {f"train/block_{phase:02d}/{name}" for name in ("loss", "accuracy")}
        tested = {name for name in record if name.startswith("test/block_")}
        assert tested == {
            f"test/block_{index:02d}/{name}" for index in range(phase + 1) for name in ("loss", "accuracy")
        }
        assert ("test/accuracy" in record) == ("train/loss" in record) == (phase == 2)
    # A block that is finished keeps its accuracy to the last bit.
    assert len({record["test/block_00/accuracy"] for record in epochs}) == 1
    summary = run.summary()
    assert (summary["best_epoch"], summary["best_test_accuracy"]) == (3, epochs[-1]["test/accuracy"])
    assert None not in summary["block_test_accuracy"]
    assert main.main(["report", str(run.last), "--out", str(run.path / "report")]) == 0


@pytest.mark.parametrize("step", [1, 4, 6, 9, 12, 14])  # inside each phase, and at the end of each
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_a_run_stopped_in_any_phase_goes_on_with_the_same_bits(
    run, same, monkeypatch: pytest.MonkeyPatch, step: int, optimizer: str
) -> None:
    words = [*WORDS, "--optimizer_type", optimizer, "--learning_rate", "0.01"]
    run(*words)
    whole, records = run.folders[-1], without_times(run.records())
    with monkeypatch.context() as patch:
        after(step, patch)
        assert run(*words) == 143
    folder = run.last
    assert run.resume(str(folder)) == 0
    for name in ("last.ckpt", "best.ckpt"):
        same(run.state(whole, name), run.state(folder, name))
    assert without_times(run.records(folder)) == records


def test_a_stopped_run_is_evaluated_as_far_as_it_is(run, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    after(6, monkeypatch)
    assert run(*WORDS) == 143
    assert run.summary()["best_test_accuracy"] is None
    capsys.readouterr()
    words = ["evaluate", str(run.last), "--device", "cpu"]
    assert main.main([*words, "--weights", "last"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines() if "test accuracy" in line] == ["block_00", "block_01"]
    assert main.main(words) == 1  # no epoch can be the best one yet
    assert "there is no checkpoint" in capsys.readouterr().err


def test_a_phase_without_any_exit_has_no_accuracy(run) -> None:
    assert run("--dgl", "--sequential", "--ssl", "--pred_loss_weight", "0") == 0
    first, *_, last = [record for record in run.records() if record["kind"] == "epoch"]
    assert not [name for name in first if name.startswith("test/")]
    assert "train/block_00/ssl_loss" in first
    assert "test/accuracy" in last


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "multistep", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 1.5])
def test_every_phase_has_the_course_of_a_short_run(schedule: str, warmup: float) -> None:
    args = {"lr_schedule": schedule, "warmup_epochs": warmup}
    short, long = OptimArgs(epochs=4, **args), OptimArgs(epochs=12, **args)
    expected = [factor(short, step, 40) for step in range(40)]
    assert [factor(long, step, 120, 3) for step in range(120)] == 3 * expected


def test_observers_look_at_blocks_that_do_not_learn_yet(run) -> None:
    assert run("--dgl", "--sequential", "--diagnostics", "alignment", "probes", "cka", "confusion") == 0
    epochs = [record for record in run.records() if record["kind"] == "epoch"]
    for phase, record in enumerate(epochs):
        assert [f"inside/block_{index:02d}/alignment" in record for index in range(3)] == [
            index == phase for index in range(3)
        ]
        if phase == 2:  # on top of finished blocks the last one learns by back-propagation
            assert record["inside/block_02/alignment"] == pytest.approx(1, abs=1e-6)
        assert torch.tensor([record[f"inside/block_{index:02d}/probe_accuracy"] for index in range(3)]).isfinite().all()


def test_the_peak_memory_is_that_of_the_largest_phase(run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recording for a phase resets what torch counts."""
    peaks = iter([300, 900, 100])
    seen = [0]

    def peak(device: torch.device) -> int:
        return seen[0]

    monkeypatch.setattr("engine.module.peak_memory", peak)
    monkeypatch.setattr("engine.module.reset_peak_memory", lambda device: seen.__setitem__(0, next(peaks)))
    assert run(*WORDS) == 0
    assert run.summary()["peak_memory_bytes"] == 900
