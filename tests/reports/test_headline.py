"""What a page says first: who ended highest, whether that can be said, and numbers as a person writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reports.groups import group_runs, spoken
from reports.headline import lead, ranking
from reports.looks import looks_of
from reports.runs import find_runs

MakeRun = Callable[..., Path]


def lead_of(folder: Path) -> str:
    return lead(group_runs(find_runs([folder])))


def test_the_best_and_its_distance(make_run: MakeRun) -> None:
    for seed in (0, 1):
        make_run(f"dgl{seed}", "dgl", seed=seed)
        root = make_run(f"bp{seed}", "bp", seed=seed + 5).parent
    assert lead_of(root) == ("bp: 85.50 % ± 0.71 (2 runs) test accuracy after the last epoch, 5.00 points above dgl.")


def test_ranges_that_reach_into_each_other_are_a_tie(make_run: MakeRun) -> None:
    for name, seeds in (("bp", (1, 4)), ("dgl", (0, 3)), ("fa", (0, 1)), ("dni", (0, 0))):
        for index, seed in enumerate(seeds):
            root = make_run(f"{name}{index}", name, seed=seed).parent
    assert lead_of(root).endswith("A tie by these runs: the range of dgl and fa reaches into that of bp.")


def test_one_seed_is_not_called_a_result(make_run: MakeRun) -> None:
    make_run("a", "bp", seed=2)
    assert "how much of it is chance is not known" in lead_of(make_run("b", "dgl").parent)


def test_without_results_there_is_no_winner(make_run: MakeRun) -> None:
    for name in ("a", "b"):
        folder = make_run(name, name)
        (folder / "metrics.jsonl").write_text("")
        (folder / "summary.json").write_text("{}")
    groups = group_runs(find_runs([folder.parent]))
    assert lead(groups) == "No run has been tested yet."
    assert ranking(groups, looks_of(["a", "b"])) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "yes"), (False, "no"), (None, "none"), ([], "none"), ([0.5, 0.75], "0.5, 0.75"), (1e-05, "0.00001"),
        (5e-4, "0.0005"), (0.1 + 0.2, "0.3"), (20.0, "20"), (3, "3"), (1e-30, "1e-30"), (float("nan"), "nan"),
        ("word", "word"),
    ],
)  # fmt: skip
def test_values_are_written_as_a_person_writes_them(value: object, text: str) -> None:
    assert spoken(value) == text
