"""Sweeps from their file to their table, with trials that are processes but no trainings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

RANDOM = {"learning_rate": {"min": 0.1, "max": 0.8}, "momentum": {"values": [0.5, 0.9]}}


def accuracy(rate: float, epoch: int = 2) -> float:
    return 100 * (1 - rate) * epoch / (epoch + 1)


def test_a_grid_tries_every_point_once_and_names_the_best(sweeper, capsys) -> None:
    parameters = sweeper.vary(learning_rate={"values": [0.3, 0.1]}, nesterov={"values": [True, False]})
    assert sweeper(str(sweeper.write(parameters=parameters)), "--workers", "3") == 0
    rows = sweeper.rows()
    assert [(float(row["learning_rate"]), row["nesterov"]) for row in rows] == [
        (0.1, "True"), (0.1, "False"), (0.3, "True"), (0.3, "False"),
    ]  # fmt: skip
    assert [row["trial"] for row in rows] == ["2", "3", "0", "1"]
    assert [float(row["test/accuracy"]) for row in rows] == pytest.approx([accuracy(0.1)] * 2 + [accuracy(0.3)] * 2)
    assert {row["best_epoch"] for row in rows} == {"2"}
    assert all((sweeper.folder / row["run"] / "summary.json").exists() for row in rows)
    out = capsys.readouterr().out
    assert "Best: trial 2: python main.py --dataset=digits --epochs=2 --learning_rate=0.1 --nesterov=true" in out
    assert "(4/4)" in out and "ETA 0:00:00" in out
    assert (sweeper.folder / "parallel.svg").exists() and (sweeper.folder / "importance.svg").exists()
    best, values = f"{accuracy(0.1):.4g} %", "learning_rate=0.1 nesterov=true"
    won = f"Trial 2 is the best of 4: test/accuracy {best} in epoch 2, with {values}."
    tie = "A tie: the same value was reached by trial 3."
    assert f"{won} {tie}" in out
    page = (sweeper.folder / "report.html").read_text()
    typed = "python main.py --dataset=digits --epochs=2 --learning_rate=0.1 --nesterov=true"
    command = " ".join(f"<span>{word}</span>" for word in typed.split())
    for words in (f'<p class="lead">{won} {tie}</p>', command, "Every trial as a line", "Importance of each setting"):
        assert words in page
    assert page.index("is the best of 4") < page.index("<h2>Trials</h2>") < page.index("<svg")


def test_the_command_of_a_trial_is_one_that_a_person_can_type(sweeper) -> None:
    import shlex

    import cli

    sweeper(str(sweeper.write(command=["${env}", "python", "${program}", "${args}", "--batch_size", "16"])))
    words = shlex.split((sweeper.folder / "trials" / "trial_0001.sh").read_text())
    assert words[:2] == ["python", "main.py"]
    flat = cli.parse(words[2:]).args.flat()
    assert (flat["learning_rate"], flat["batch_size"], flat["dataset"]) == (0.2, 16, "digits")
    assert (flat["path"], flat["name"]) == (str(sweeper.folder), "trial_0001")


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_search_depends_on_its_seed_only(sweeper, method: str) -> None:
    file = str(sweeper.write(method=method, parameters=sweeper.vary(**RANDOM)))
    drawn = []
    for seed, workers in ((5, 1), (5, 3 if method == "random" else 1), (6, 1)):
        assert sweeper(file, "--trials", "6", "--seed", str(seed), "--workers", str(workers)) == 0
        [*_, folder] = sorted(sweeper.folders, key=lambda path: path.stat().st_mtime_ns)
        lines = sorted(line.split() for line in (folder / "starts.txt").read_text().splitlines())
        drawn.append([float(rate) for _, _, rate in lines])
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(0.1 <= rate <= 0.8 for rate in drawn[0])
    assert len(set(drawn[0])) == 6


def test_the_bayesian_search_finds_the_better_end(sweeper) -> None:
    from optuna.trial import TrialState

    from sweeps.file import read_sweep
    from sweeps.folder import SweepFolder
    from sweeps.study import BEST_VALUE, SweepStudy

    file = sweeper.write(method="bayes", parameters=sweeper.vary(learning_rate={"min": 0.0001, "max": 0.8}))
    folder = SweepFolder.create(sweeper.path / "out", "x")
    folder.write_start(file, 40, seed=1, command="")
    study, rates = SweepStudy(folder, read_sweep(file)), []
    while (following := study.next_trial()) is not None:
        rates.append(following[0].params["learning_rate"])
        study.finish(following[0], TrialState.COMPLETE, {BEST_VALUE: accuracy(rates[-1])})
        following[1].release()
    assert len(rates) == 40
    assert sum(rates[20:]) / 20 < 0.5 * sum(rates[:10]) / 10


def test_run_cap_ends_a_search_and_trials_can_be_added(sweeper) -> None:
    sweeper(str(sweeper.write(method="random", run_cap=2, parameters=sweeper.vary(**RANDOM))))
    assert len(sweeper.rows()) == 2
    assert sweeper("--resume", str(sweeper.folder), "--trials", "5") == 0
    assert len(sweeper.rows()) == 5
    assert [kind for _, kind, _ in sweeper.starts()] == ["new"] * 5
    assert sweeper("--resume", str(sweeper.folder)) == 0  # all done: nothing more is started
    assert len(sweeper.starts()) == 5


def test_a_target_ends_the_search(sweeper) -> None:
    metric = {"name": "test/accuracy", "goal": "maximize", "target": accuracy(0.2)}
    parameters = sweeper.vary(learning_rate={"values": [0.3, 0.2, 0.1]})
    sweeper(str(sweeper.write(metric=metric, parameters=parameters)))
    assert [rate for _, _, rate in sweeper.starts()] == ["0.3", "0.2"]


def test_minimizing_takes_the_lowest_epoch(sweeper) -> None:
    sweeper(str(sweeper.write(metric={"name": "test/accuracy"})))
    best = sweeper.rows()[0]
    assert (float(best["learning_rate"]), best["best_epoch"]) == (0.3, "1")
    assert float(best["test/accuracy"]) == pytest.approx(accuracy(0.3, 1))


def test_a_failing_trial_is_recorded_and_the_sweep_goes_on(sweeper, capsys) -> None:
    assert sweeper(str(sweeper.write(parameters=sweeper.vary(learning_rate={"values": [0.95, 0.1, 0.99]})))) == 0
    rows = {row["learning_rate"]: row for row in sweeper.rows()}
    assert [rows[rate]["state"] for rate in ("0.95", "0.1", "0.99")] == ["failed", "done", "failed"]
    message = "the loss is not finite; lower --learning_rate (exit code 1)"
    assert rows["0.95"]["message"] == message
    assert f"Trial 0 failed: {message}" in capsys.readouterr().out


def test_three_failures_in_a_row_end_the_sweep(sweeper, capsys) -> None:
    rates = {"values": [0.95, 0.1, 0.91, 0.92, 0.93, 0.2]}
    assert sweeper(str(sweeper.write(parameters=sweeper.vary(learning_rate=rates)))) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "3 trials in a row failed, the last with: the loss is not finite" in line
    assert len(sweeper.starts()) == 5


def test_a_metric_that_no_epoch_has_ends_the_sweep(sweeper, capsys) -> None:
    assert sweeper(str(sweeper.write(metric={"name": "train/something"}))) == 1
    assert "metric.name train/something: trial 0 ended epoch 1 without it" in capsys.readouterr().err


def test_trials_that_train_block_by_block_are_judged_by_their_last_phase(sweeper) -> None:
    parameters = sweeper.vary(
        learning_rate={"values": [0.1, 0.8]}, epochs={"value": 6}, method={"value": "dgl"}, sequential={"value": True}
    )
    assert sweeper(str(sweeper.write(parameters=parameters))) == 0
    assert [float(row["test/accuracy"]) for row in sweeper.rows()] == pytest.approx(
        [accuracy(0.1, 6), accuracy(0.8, 6)]
    )


def test_hyperband_stops_the_worse_trials_and_keeps_what_they_reached(sweeper, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_EPOCH_S", "0.2")
    parameters = sweeper.vary(learning_rate={"values": [0.1, 0.8, 0.7]}, epochs={"value": 8})
    rule = {"type": "hyperband", "min_iter": 2, "eta": 2}
    assert sweeper(str(sweeper.write(parameters=parameters, early_terminate=rule))) == 0
    rows = {row["learning_rate"]: row for row in sweeper.rows()}
    assert [rows[rate]["state"] for rate in ("0.1", "0.8", "0.7")] == ["done", "stopped early", "stopped early"]
    lines = [
        len((sweeper.folder / rows[rate]["run"] / "metrics.jsonl").read_text().splitlines())
        for rate in ("0.1", "0.8", "0.7")
    ]
    assert lines[0] == 8
    assert 2 <= lines[1] < 8 and 2 <= lines[2] < 8
    assert float(rows["0.7"]["test/accuracy"]) >= accuracy(0.7, 2)
    assert json.loads((sweeper.folder / "sweep.json").read_text())["num_trials"] == 3


def test_the_sweeps_of_the_project_can_start(sweeper) -> None:
    from sweeps.check import check
    from sweeps.file import read_sweep

    files = sorted((Path(__file__).parents[2] / "configs" / "sweeps").glob("*.yaml"))
    assert files
    for file in files:
        check(read_sweep(file))
