"""The table in the terminal and the one for spreadsheets."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from reports.columns import short_count, show_blocks
from reports.runs import find_runs
from reports.table import WIDTH, comparison_table, write_csv

MakeRun = Callable[..., Path]


def table_of(folder: Path) -> list[str]:
    return comparison_table(find_runs([folder])).splitlines()


def test_a_row_for_each_group(study: Path) -> None:
    lines = table_of(study)
    assert lines[0].split() == ["best", "final", "test", "%", "by", "parameters", "train", "peak"]
    assert lines[3].split() == ["bp", "82.50", "82.00", "-", "-", "82.0", "1.23M+0", "0:01:05", "400", "1.5", "GiB"]
    assert " ".join(lines[4].split()) == (
        "dgl, 2 runs 81.00 ±0.71 80.50 ±0.71 60.5 70.5 80.5 1.23M+45.7k 0:01:05 400 1.5 GiB"
    )
    assert lines[5].startswith("Rows of several runs: mean, ± sample standard deviation")
    assert len(lines) == 6


def test_columns_are_aligned_and_fit(study: Path, make_run: MakeRun) -> None:
    make_run("direct", is_direct_global=True, pred_aux_type="x" * 70)
    lines = table_of(study)
    assert max(map(len, lines[:-1])) <= WIDTH
    rows = [line for line in lines if line.endswith("GiB")]
    assert len(rows) == 3 and len({len(line) for line in rows}) == 1
    assert "is_direct_global" in "\n".join(lines)


def test_many_blocks_show_the_first_and_the_last(make_run: MakeRun) -> None:
    lines = table_of(make_run("deep", num_blocks=9))
    assert "60.0 70.0 ... 140.0" in lines[3] and len(lines[3]) <= WIDTH


def test_what_is_amiss_stands_below(study: Path) -> None:
    summary = study / "dgl_b" / "summary.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"status": "interrupted"}))
    (study / "bp_a" / "summary.json").write_text("{")
    lines = table_of(study)
    assert lines[-1] == "dgl_b: interrupted, epochs 4 of 4; not in the mean"
    assert lines[-2].startswith("bp_a: unknown, epochs 4 of 4; summary.json cannot be read (")


def test_a_run_of_which_nothing_is_known_has_a_row(make_run: MakeRun) -> None:
    folder = make_run("one")
    for name in ("summary.json", "config.yaml", "metrics.jsonl"):
        (folder / name).write_text("")
    assert table_of(folder)[3].split() == ["one", *"-------"]


def test_the_csv_has_plain_numbers(study: Path, tmp_path: Path) -> None:
    write_csv(find_runs([study]), tmp_path / "runs.csv")
    bp, first, second = csv.DictReader((tmp_path / "runs.csv").open(newline=""))
    assert list(first)[:3] == ["run", "group", "status"] and list(first)[-1] == "problems"
    assert (second["run"], second["group"], second["seed"], second["status"]) == ("dgl_b", "dgl", "1", "done")
    assert (second["best_test_accuracy"], second["train_s"], second["peak_memory_bytes"]) == (
        "81.5",
        "65.4",
        "1610612736",
    )
    assert [second[f"test/block_{block:02d}/accuracy"] for block in range(3)] == ["61.0", "71.0", "81.0"]
    assert [bp[f"test/block_{block:02d}/accuracy"] for block in range(3)] == ["", "", "82.0"]
    assert "learning_rate" not in first and first["device"] == "cuda:0"


def test_the_csv_keeps_values_with_commas_and_line_breaks_apart(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", note='1,"2\n3')
    write_csv(find_runs([make_run("b", note="plain").parent]), tmp_path / "runs.csv")
    assert [row["note"] for row in csv.DictReader((tmp_path / "runs.csv").open(newline=""))] == ['1,"2\n3', "plain"]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (999.7, "1k"), (45_678, "45.7k"), (999_900, "1M"), (1.5e9, "1.5G"), (None, "-")],
)
def test_short_counts(count: float | None, text: str) -> None:
    assert short_count(count) == text


def test_blocks_without_a_classifier_are_dashes() -> None:
    assert show_blocks([None, 50.0]) == "- 50.0"
    assert show_blocks([]) == "-"
