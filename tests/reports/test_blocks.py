"""Blocks of one run, and of groups side by side, against numbers written out by hand."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from reports.blocks import block_table, difference_panels, difference_table
from reports.groups import group_runs
from reports.overview import comparison_cards, comparison_pictures
from reports.runs import find_runs, load_run

MakeRun = Callable[..., Path]


def observe(folder: Path, probes: list[float], cosines: list[float]) -> Path:
    """Add measured values to the last epoch but one, as a run does that was cut off in its last."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    line = [line for line in lines if line["kind"] == "epoch"][-2]
    for block, (probe, cosine) in enumerate(zip(probes, cosines, strict=True)):
        line |= {f"inside/block_{block:02d}/probe_accuracy": probe, f"inside/block_{block:02d}/alignment": cosine}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def study(make_run: MakeRun) -> Path:
    observe(make_run("bp", "bp", seed=2), [50, 60, 70], [1, 1, 1])
    observe(make_run("dgl0", seed=0), [55, 58, 61], [0.25, 0.5, 1])
    return observe(make_run("dgl1", seed=1), [57, 60, 63], [0.75, 0.5, 1]).parent


def test_groups_side_by_side_with_the_difference_to_back_propagation(study: Path) -> None:
    header, *rows = difference_table(group_runs(find_runs([study])))
    assert header == ["quantity", "group", "block 0", "block 1", "block 2"]
    assert rows == [
        ["test accuracy (%)", "bp", "-", "-", "82.00"],
        ["test accuracy (%)", "dgl, 2 runs", "60.50", "70.50", "80.50 (-1.50)"],
        ["linear probe (%)", "bp", "50.00", "60.00", "70.00"],
        ["linear probe (%)", "dgl, 2 runs", "56.00 (+6.00)", "59.00 (-1.00)", "62.00 (-8.00)"],
        ["cosine with back-prop's gradient", "bp", "1.000", "1.000", "1.000"],
        ["cosine with back-prop's gradient", "dgl, 2 runs", "0.500 (-0.500)", "0.500 (-0.500)", "1.000 (+0.000)"],
    ]


def test_a_panel_for_each_quantity_that_was_measured(study: Path) -> None:
    runs = find_runs([study])
    assert list(difference_panels(group_runs(runs))) == ["probe_accuracy", "alignment"]
    card = comparison_cards(runs)["probe_accuracy"]
    [panel] = json.loads(html.unescape(re.findall('data-values="([^"]*)"', card)[0]))
    read = {curve["name"]: [point[2:] for point in curve["points"]] for curve in panel["curves"]}
    assert read == {
        "bp": [["0", "50.00 %"], ["1", "60.00 %"], ["2", "70.00 %"]],
        "dgl, 2 runs": [["0", "56.00 %"], ["1", "59.00 %"], ["2", "62.00 %"]],
    }
    assert "blocks_compared" in comparison_pictures(runs)


def test_without_diagnostics_there_is_nothing_to_compare_but_accuracy(make_run: MakeRun, study: Path) -> None:
    other = make_run("plain", learning_rate=1)
    plain = find_runs([make_run("another"), other])
    assert not difference_panels(group_runs(plain)) and "blocks_compared" not in comparison_pictures(plain)
    assert not difference_panels(group_runs(find_runs([study / "bp", other])))  # one group has values


def test_the_blocks_of_a_run_are_described_as_its_summary_does(make_run: MakeRun) -> None:
    folder = make_run("one")
    summary = json.loads((folder / "summary.json").read_text())
    summary["blocks"] = [
        {"output": [128, 16, 16], "num_parameters": 9984, "receptive_field": 6, "stride": 2},
        {"output": "damaged", "num_parameters": None},
        "damaged",
    ]
    (folder / "summary.json").write_text(json.dumps(summary))
    assert block_table(load_run(folder)) == [
        ["block", "output", "parameters", "receptive field", "stride", "test accuracy (%)"],
        ["0", "128x16x16", "9,984", "6", "2", "60.00"],
        ["1", "-", "-", "-", "-", "70.00"],
        ["2", "-", "-", "-", "-", "80.00"],
    ]


@pytest.mark.parametrize("name", ["metrics.jsonl", "summary.json"])
def test_a_run_that_is_damaged_shows_what_there_is(study: Path, name: str) -> None:
    (study / "dgl0" / name).write_text("{")
    runs = find_runs([study])
    assert len(difference_table(group_runs(runs))) > 4
    assert block_table(load_run(study / "dgl0"))[0][0] == "block"
