"""Runs are found where they lie, and read however damaged they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from reports import report
from reports.csv_runs import read_csv
from reports.groups import group_runs
from reports.overview import comparison_figure
from reports.runs import find_runs, load_run
from utils import UserError

MakeRun = Callable[..., Path]


def rewrite(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def append(path: Path, *lines: dict[str, object]) -> None:
    with path.open("a") as stream:
        stream.writelines(json.dumps(line) + "\n" for line in lines)


def test_a_whole_run_has_no_problems(make_run: MakeRun) -> None:
    run = load_run(make_run("one", seed=1))
    assert run.problems == ()
    assert (run.name, len(run.steps), len(run.epochs)) == ("one", 4, 4)
    assert run.config["learning_rate"] == 0.05 and run.config["method"] == "dgl"
    assert run.block_accuracies() == [61.0, 71.0, 81.0]
    assert run.curve("test/loss") == {1: 2.5, 2: 1.25, 3: 2.5 / 3, 4: 0.625}


def test_a_cut_last_line_costs_that_line(make_run: MakeRun) -> None:
    folder = make_run("one")
    content = (folder / "metrics.jsonl").read_bytes()
    (folder / "metrics.jsonl").write_bytes(content[:-25])
    run = load_run(folder)
    assert list(run.curve("test/loss")) == [1, 2, 3]
    assert run.problems == ("metrics.jsonl: line 8 cannot be read (cut off or damaged)",)


def test_without_a_summary_the_epochs_tell_the_accuracies(make_run: MakeRun) -> None:
    folder = make_run("one")
    (folder / "summary.json").unlink()
    run = load_run(folder)
    assert run.problems == ("summary.json is missing",)
    assert run.number("final_test_accuracy") == run.number("best_test_accuracy") == 80
    assert run.number("best_epoch") == 4
    assert run.block_accuracies() == [60.0, 70.0, 80.0]


def test_the_best_epoch_is_chosen_on_validation_images(make_run: MakeRun) -> None:
    folder = make_run("one")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    chosen = {1: 10.0, 2: 30.0, 3: 20.0, 4: 5.0}
    (folder / "metrics.jsonl").write_text("")
    append(folder / "metrics.jsonl", *(line | {"val/accuracy": chosen[line["epoch"]]} for line in lines))
    (folder / "summary.json").unlink()
    run = load_run(folder)
    assert run.number("best_epoch") == 2 and run.number("best_test_accuracy") == 70


def test_while_running_the_metrics_are_newer_than_the_summary(make_run: MakeRun) -> None:
    folder = make_run("one")
    rewrite(folder / "summary.json", status="running", final_test_accuracy=1.0, train_s=9.0)
    run = load_run(folder)
    assert run.number("final_test_accuracy") == 80 and run.number("train_s") == 9
    rewrite(folder / "summary.json", status="done")
    assert load_run(folder).number("final_test_accuracy") == 1


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("summary.json", '{"status": "do', "summary.json cannot be read (Unterminated string"),
        ("summary.json", "[1, 2]", "summary.json cannot be read (it holds no keys)"),
        ("summary.json", "[" * 100_000, "summary.json cannot be read ("),
        ("config.yaml", "a: [1\nb: }", "config.yaml cannot be read ("),
        ("config.yaml", "&a {b: *a}", "config.yaml cannot be read ("),
        ("config.yaml", "", "config.yaml cannot be read (it holds no keys)"),
        ("metrics.jsonl", "", "no epoch has ended yet"),
        (
            "metrics.jsonl",
            '7\n{"kind": "epoch"}\n\xff\n',
            "metrics.jsonl: 3 lines, the first of them 1, cannot be read",
        ),
    ],
)
def test_damage_is_named_in_one_line(make_run: MakeRun, file: str, content: str, problem: str) -> None:
    folder = make_run("one")
    (folder / file).write_text(content, encoding="latin-1")
    problems = load_run(folder).problems
    assert problems and problems[0].startswith(problem) and not any("\n" in line for line in problems)


@pytest.mark.parametrize("value", ["null", "NaN", "Infinity"])
def test_values_that_are_not_finite_are_left_out_and_named(make_run: MakeRun, value: str) -> None:
    folder = make_run("one")
    text = (folder / "metrics.jsonl").read_text().replace('"train/loss": 1.0,', f'"train/loss": {value},')
    (folder / "metrics.jsonl").write_text(text)
    run = load_run(folder)
    assert list(run.curve("train/loss")) == [1, 3, 4]
    assert run.problems == ("metrics.jsonl: train/loss is not a finite number in epoch 2",)


def test_numbers_of_a_strange_kind_count_as_missing(make_run: MakeRun) -> None:
    folder = make_run("one")
    rewrite(folder / "summary.json", wall_s="soon", train_s=True, best_epoch=10**400, block_test_accuracy=[1.0, "x"])
    run = load_run(folder)
    assert [run.number(key) for key in ("wall_s", "train_s", "best_epoch")] == [None, None, None]
    assert run.block_accuracies() == [1.0, None]


def test_a_repeated_epoch_counts_once_with_its_last_values(make_run: MakeRun) -> None:
    folder = make_run("one")
    append(folder / "metrics.jsonl", {"kind": "epoch", "step": 40, "epoch": 4, "test/loss": 9.0})
    assert load_run(folder).curve("test/loss")[4] == 9


def test_runs_are_found_two_levels_deep_and_once(study: Path, make_run: MakeRun) -> None:
    make_run("studies/deep")
    make_run("studies/far/away/too_deep")
    names = [run.name for run in find_runs([study, study / "studies" / ".." / "dgl_a", study / "studies"])]
    assert names == ["bp_a", "dgl_a", "dgl_b", "deep"]


def test_runs_of_one_name_are_told_apart_by_their_parents(make_run: MakeRun) -> None:
    root = make_run("x/run").parent.parent
    make_run("y/run")
    assert [run.name for run in find_runs([root])] == ["x/run", "y/run"]


def test_control_characters_in_a_name_are_replaced(make_run: MakeRun) -> None:
    assert load_run(make_run("a\x1b[31mb\nc")).name == "a?[31mb?c"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing\n", "missing?: no such folder"),
        ("file", "file: not a folder"),
        ("empty", "empty: no run here (a run is a folder with summary.json or metrics.jsonl)"),
    ],
)
def test_a_path_without_runs_is_an_error_of_one_line(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as caught:
        find_runs([tmp_path / path])
    assert str(caught.value) == f"{tmp_path}/{message}"


def test_a_table_of_a_report_is_a_source_of_another_one(study: Path, tmp_path: Path) -> None:
    first = report([study], tmp_path / "first")
    second = report([tmp_path / "first" / "runs.csv"], tmp_path / "second")
    [rows, again] = [text.split("\n\nWritten:")[0] for text in (first, second)]
    assert again == rows and "80.50" in again
    one, other = (group_runs(runs) for runs in (find_runs([study]), read_csv(tmp_path / "first" / "runs.csv")))
    assert [group.block_accuracies() for group in one] == [group.block_accuracies() for group in other]
    assert len(comparison_figure(read_csv(tmp_path / "first" / "runs.csv")).axes) == 1  # curves are not kept


@pytest.mark.parametrize("content", [b"", b"run,method\n", b"a,b\n1,2\n", b"\xff\xfe\x00", b"run\x00,method\n1,2\n"])
def test_what_is_no_table_of_runs_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a table of runs"):
        read_csv(path)
