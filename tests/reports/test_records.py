"""The table of finished runs that a study keeps, and the leaderboard made from such tables."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import main
import reports
from reports.groups import group_runs
from reports.leaderboard import FULL_EPOCHS, HEADER, is_full_length, markdown, rows
from reports.runs import Run, find_runs
from utils import UsageError

MakeRun = Callable[..., Path]
FULL = {"train_size": None, "epochs": FULL_EPOCHS, "random_crop": True, "random_horizontal_flip": True}


def change(folder: Path, **summary: Any) -> None:
    path = folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | summary))


def test_a_study_gives_back_what_its_runs_say(study: Path, tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    assert reports.record([study], table).endswith("3 of 3 runs added")
    before, after = group_runs(find_runs([study])), group_runs(reports.load([tmp_path]))
    for one, other in zip(before, after, strict=True):
        assert one.label == other.label and one.settings == other.settings
        assert one.spread("final_test_accuracy") == other.spread("final_test_accuracy")
        assert one.block_accuracies() == other.block_accuracies()


def test_each_run_is_added_once_and_only_when_it_is_finished(study: Path, make_run: MakeRun, tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    change(study / "dgl_a", status="running")
    assert reports.record([study], table).endswith("2 of 3 runs added")
    change(study / "dgl_a", status="done")
    make_run("dgl_c", seed=5)
    assert reports.record([study], table).endswith("2 of 4 runs added")
    assert reports.record([study], table).endswith("0 of 4 runs added")
    with table.open() as stream:
        assert [line["run"] for line in csv.DictReader(stream)] == ["bp_a", "dgl_b", "dgl_a", "dgl_c"]


def test_the_line_has_commit_machine_and_config_but_no_path_of_the_machine(study: Path, tmp_path: Path) -> None:
    facts = {"commit": "abc", "device_name": "EPYC", "num_threads": 1, "num_cpus": 2, "packages": {"torch": "2.14.1"}}
    (study / "bp_a" / "environment.json").write_text(json.dumps(facts))
    (study / "bp_a" / "command.txt").write_text("main.py --config configs/a.yaml --path=/home/me")
    reports.record([study], tmp_path / "results.csv")
    text = (tmp_path / "results.csv").read_text()
    line = next(csv.DictReader(text.splitlines()))
    assert (line["commit"], line["torch"], line["config"]) == ("abc", "2.14.1", "configs/a.yaml")
    assert line["machine"] == "EPYC, 1 of 2 threads"
    assert "/home/me" not in text and str(tmp_path) not in text


def test_another_table_is_not_overwritten(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "results.csv"
    table.write_text("run,method\n")
    with pytest.raises(UsageError, match="its columns differ"):
        reports.record([study], table)
    assert main.main(["report", str(study), "--record", str(table)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert table.read_text() == "run,method\n"


def test_a_damaged_cell_is_named(study: Path, tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    reports.record([study], table)
    table.write_text(table.read_text().replace('"{', '"('))
    with pytest.raises(UsageError, match="settings is damaged"):
        reports.load([table])


@pytest.mark.parametrize(
    ("name", "value", "counts"),
    [
        ("epochs", FULL_EPOCHS, True), ("epochs", FULL_EPOCHS - 1, False), ("train_size", 10_000, False),
        ("random_labels", 0.5, False), ("random_labels", 0.0, True),
    ],
)  # fmt: skip
def test_full_length(name: str, value: float, counts: bool) -> None:
    run = Run(Path(), "a", {"status": "done"}, FULL | {name: value}, [], [], ())
    assert is_full_length(run) == counts
    assert not is_full_length(Run(Path(), "a", {"status": "failed"}, FULL, [], [], ()))
    assert not is_full_length(Run(Path(), "a", {"status": "done"}, {"epochs": 50}, [], [], ()))  # nobody knows


def board_run(method: str, final: float, *, model: str = "BasicCNN", machine: str = "one", **config: Any) -> Run:
    summary = {
        "status": "done", "final_test_accuracy": final, "train_cpu_s": final, "peak_memory_bytes": 2 * final,
        "isolation": "none" if method == "bp" else "block", "blocks_alone": method == "dgl", "machine": machine,
    }  # fmt: skip
    return Run(Path(), f"{method}{final}", summary, FULL | {"model": model, "method": method} | config, [], [], ())


def line_of(text: str, rule: str) -> dict[str, str]:
    lines = [dict(zip(HEADER, map(str.strip, line.strip("|").split("|")), strict=True)) for line in text.splitlines()]
    (found,) = [line for line in lines if line["rule"] == rule]
    return found


def test_the_leaderboard_compares_with_back_propagation_on_the_same_network_alone() -> None:
    runs = [
        board_run("bp", 80, seed=0), board_run("bp", 84, seed=1), board_run("dgl", 81, seed=0),
        board_run("dgl", 79, overlap=1), board_run("bp", 50, model="VGG16"), board_run("dgl", 10, train_size=500),
    ]  # fmt: skip
    text = markdown(runs)
    assert [row.label for row in rows(runs)] == ["bp", "dgl", "dgl overlap=1", "bp"]
    dgl = line_of(text, "dgl")
    assert dgl["test accuracy (%)"] == "81.00" and dgl["to bp"] == "-1.00" and dgl["stages at once"] == "yes"
    assert dgl["time"] == dgl["memory"] == "0.99"
    assert line_of(text, "dgl overlap=1")["to bp"] == "-3.00"
    bp = next(line for line in text.splitlines() if "82.00" in line)
    assert "82.00 ± 2.83" in bp and "| no " in bp and bp.rstrip(" |").endswith("| 2")


def test_times_on_machines_that_differ_are_not_compared() -> None:
    text = markdown([board_run("bp", 80), board_run("dgl", 81, machine="another")])
    assert line_of(text, "dgl")["time"] == line_of(text, "dgl")["memory"] == "-"


def test_no_leaderboard_without_a_run_of_full_length(study: Path, tmp_path: Path) -> None:
    assert markdown(find_runs([study])) == ""
    reports.report([study], tmp_path / "out")
    assert not (tmp_path / "out" / "leaderboard.md").exists()


def test_a_report_over_studies_writes_it(make_run: MakeRun, tmp_path: Path) -> None:
    for name in ("bp", "dgl"):
        folder = make_run(name, name, train_size=None)
        path = folder / "config.yaml"
        path.write_text(path.read_text().replace("epochs: 4", f"epochs: {FULL_EPOCHS}"))
    for method in ("bp", "dgl"):
        (tmp_path / "studies" / method).mkdir(parents=True)
        reports.record([tmp_path / "runs" / method], tmp_path / "studies" / method / "results.csv")
    (tmp_path / "studies" / "other").mkdir()
    (tmp_path / "studies" / "other" / "results.csv").write_text("network,rule\na,b\n")  # of another kind
    shown = reports.report([tmp_path / "studies"], tmp_path / "out")
    written = (tmp_path / "out" / "leaderboard.md").read_text()
    assert markdown(reports.load([tmp_path / "studies"])) in written and "Full length:" in shown
    assert line_of(written.partition("\n\n")[2].strip(), "dgl")["to bp"] == "+0.00"


def test_a_table_or_a_report(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder for a report that is not written would be a flag without effect."""
    words = ["report", str(study), "--record", str(tmp_path / "a.csv"), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        main.main(words)
    assert ended.value.code == 2 and capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "a.csv").exists() and not (tmp_path / "out").exists()
    assert main.main(["report", str(study), "--record", str(tmp_path / "none" / "a.csv")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
