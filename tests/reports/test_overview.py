"""Who ended where, and how they got there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reports.groups import group_runs
from reports.overview import MAX_LABEL, comparison_pictures, curves_figure, ranking_figure
from reports.runs import find_runs

MakeRun = Callable[..., Path]


@pytest.fixture
def study(make_run: MakeRun) -> Path:
    make_run("bp", "bp", seed=2)
    make_run("dgl0", "dgl", seed=0)
    return make_run("dgl1", "dgl", seed=1).parent


def test_the_ranking_has_the_best_on_top_with_mean_and_range(study: Path) -> None:
    (axes,) = ranking_figure(find_runs([study])).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["dgl, 2 runs", "bp"]  # upwards
    bars, points = axes.get_lines()[::2], axes.get_lines()[1::2]
    assert [list(bar.get_xdata()) for bar in bars] == [[80, 81], [82, 82]]
    assert [list(point.get_xdata()) for point in points] == [[80.5], [82]]
    assert [text.get_text() for text in axes.texts] == ["80.5 \u00b1 0.7", "82.0"]


def test_long_names_leave_room_for_the_points(make_run: MakeRun) -> None:
    for index in range(2):
        root = make_run(f"run{index}", "dgl", note="x" * 38, other=f"{'y' * 30}{index}").parent
    (axes,) = ranking_figure(find_runs([root])).axes
    assert all(len(label.get_text()) <= MAX_LABEL for label in axes.get_yticklabels())


def test_the_curves_show_every_split_and_quantity(study: Path) -> None:
    panels = curves_figure(find_runs([study])).axes
    assert [axes.get_title(loc="left") for axes in panels] == [
        "train accuracy (%)", "train loss", "test accuracy (%)", "test loss",
    ]  # fmt: skip
    bp, dgl = panels[2].get_lines()
    assert list(bp.get_xdata()) == list(dgl.get_xdata()) == [1, 2, 3, 4]
    assert (bp.get_ydata()[-1], dgl.get_ydata()[-1]) == (82, 80.5)


def test_groups_beyond_the_colours_have_other_line_styles(make_run: MakeRun) -> None:
    for index in range(8):
        root = make_run(f"run{index}", learning=index).parent
    lines = curves_figure(find_runs([root])).axes[0].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 8


def test_runs_without_an_epoch_are_no_obstacle(make_run: MakeRun) -> None:
    for name in ("a", "b"):
        folder = make_run(name, learning=name)
        (folder / "metrics.jsonl").write_text("")
        (folder / "summary.json").write_text("{}")
    for svg in comparison_pictures(find_runs([folder.parent])).values():
        assert "no values to show yet" in svg


def test_names_that_tell_all_groups_apart_are_their_labels(make_run: MakeRun) -> None:
    make_run("a0", "dgl", seed=0, label="mine", rate=1)
    make_run("a1", "dgl", seed=1, label="mine", rate=1)
    root = make_run("b", "dgl", label="other", rate=2).parent
    assert [group.label for group in group_runs(find_runs([root]))] == ["mine", "other"]


@pytest.mark.parametrize("names", [("mine", "mine"), ("mine", "")])
def test_names_that_do_not_are_not(make_run: MakeRun, names: tuple[str, str]) -> None:
    make_run("a", "dgl", label=names[0], rate=1)
    root = make_run("b", "dgl", label=names[1], rate=2).parent
    assert [group.label for group in group_runs(find_runs([root]))] == ["dgl rate=1", "dgl rate=2"]


def test_the_names_that_a_sweep_gives_are_no_labels(make_run: MakeRun) -> None:
    for number in range(2):
        make_run(f"t{number}", label=f"trial_{number:04d}", hidden=number + 1)
    labels = {group.label for group in group_runs(find_runs([make_run("other", label="x", batch_size=7).parent]))}
    assert not any("trial" in label for label in labels) and len(labels) == 3
