"""Runs that differ in the seed alone belong together, and labels say what sets groups apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from reports.groups import Group, group_runs, spread
from reports.runs import find_runs

MakeRun = Callable[..., Path]


def groups_of(folder: Path) -> dict[str, Group]:
    return {group.label: group for group in group_runs(find_runs([folder]))}


def test_seeds_belong_together_whatever_their_name_and_gpu(study: Path) -> None:
    groups = groups_of(study)
    assert {label: [run.name for run in group.runs] for label, group in groups.items()} == {
        "bp": ["bp_a"], "dgl": ["dgl_a", "dgl_b"],
    }  # fmt: skip
    assert groups["dgl"].title == "dgl, 2 runs" and groups["bp"].title == "bp"


def test_statistics_are_over_the_runs(study: Path) -> None:
    dgl = groups_of(study)["dgl"]
    final = dgl.spread("final_test_accuracy")  # 80 and 81
    assert final and (final.mean, final.low, final.high, final.count) == (80.5, 80, 81, 2)
    assert final.deviation == pytest.approx(0.5**0.5)
    assert [value and value.mean for value in dgl.block_accuracies()] == [60.5, 70.5, 80.5]
    assert {epoch: value.mean for epoch, value in dgl.curve("test/accuracy").items()} == {
        1: 65.5,
        2: 70.5,
        3: 75.5,
        4: 80.5,
    }
    assert spread([None, None]) is None


def test_a_curve_has_the_epochs_that_all_its_runs_have(study: Path) -> None:
    metrics = study / "dgl_b" / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:-4]))
    assert list(groups_of(study)["dgl"].curve("test/accuracy")) == [1, 2]


def test_labels_name_what_differs_among_those_that_have_it(study: Path, make_run: MakeRun) -> None:
    make_run("x", is_direct_global=True, last_gradient_weight=0.5)
    make_run("y", is_direct_global=False, last_gradient_weight=0.5)
    make_run("z", is_direct_global=True, last_gradient_weight=0.9)
    assert set(groups_of(study)) == {
        "bp",
        "dgl",
        "dgl is_direct_global last_gradient_weight=0.5",
        "dgl last_gradient_weight=0.5",
        "dgl is_direct_global last_gradient_weight=0.9",
    }


def test_a_setting_that_older_runs_lack_is_named_only_where_labels_would_be_the_same(make_run: MakeRun) -> None:
    make_run("old")
    make_run("bp", "bp")
    root = make_run("new", new_setting=1).parent
    assert set(groups_of(root)) == {"dgl", "bp", "dgl new_setting=1"}


def test_a_setting_that_only_some_rules_have_is_named_where_it_differs_within_one(make_run: MakeRun) -> None:
    make_run("bp", "bp")
    make_run("dgl", head="cnn")
    root = make_run("predsim", "predsim", head="linear").parent
    assert set(groups_of(root)) == {"bp", "dgl", "predsim"}
    make_run("other", head="mlp")
    assert set(groups_of(root)) == {"bp", "dgl head=cnn", "dgl head=mlp", "predsim head=linear"}


def test_groups_are_sorted_by_what_they_reached(make_run: MakeRun) -> None:
    for name, seed in (("low", 1), ("high", 5), ("middle", 3)):
        root = make_run(name, name, seed=seed).parent
    empty = make_run("none", "none")
    (empty / "metrics.jsonl").write_text("")
    (empty / "summary.json").write_text("{}")
    assert [group.runs[0].name for group in group_runs(find_runs([root]))] == ["high", "middle", "low", "none"]


def test_labels_that_still_say_the_same_get_the_name_of_a_run(make_run: MakeRun) -> None:
    make_run("old")
    root = make_run("new", new_switch=False).parent
    assert set(groups_of(root)) == {"dgl (old)", "dgl (new)"}


def test_a_cpu_is_not_pooled_with_a_gpu(make_run: MakeRun) -> None:
    root = make_run("gpu").parent
    config = make_run("cpu", seed=1) / "config.yaml"
    config.write_text(config.read_text().replace("cuda:1", "cpu"))
    assert set(groups_of(root)) == {"dgl device=cpu", "dgl device=cuda"}


@pytest.mark.parametrize("own", ["folder", "arrays"])
def test_with_data_of_the_users_own_the_path_is_the_data(study: Path, own: str) -> None:
    for config in study.glob("*/config.yaml"):
        config.write_text(config.read_text().replace("dataset: digits", f"dataset: {own}"))
    assert set(groups_of(study)) == {"bp data_dir=data2", "dgl data_dir=data0", "dgl data_dir=data1"}


def test_a_run_without_settings_is_pooled_with_nothing(study: Path) -> None:
    for name in ("dgl_a", "dgl_b"):
        (study / name / "config.yaml").unlink()
    assert set(groups_of(study)) == {"bp", "dgl (dgl_a)", "dgl (dgl_b)"}


def test_unfinished_runs_stay_out_of_the_mean_unless_there_are_no_others(study: Path) -> None:
    for name, means in (("dgl_b", 80), ("dgl_a", 80.5)):
        summary = study / name / "summary.json"
        summary.write_text(json.dumps(json.loads(summary.read_text()) | {"status": "failed"}))
        final = groups_of(study)["dgl"].spread("final_test_accuracy")
        assert final and final.mean == means
