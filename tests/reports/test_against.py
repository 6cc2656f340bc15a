"""Accuracy against the number that was varied most."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reports.against import against_figure, varied_number
from reports.groups import group_runs
from reports.overview import comparison_pictures
from reports.runs import find_runs

MakeRun = Callable[..., Path]


@pytest.fixture
def study(make_run: MakeRun) -> Path:
    """Two heads at three widths, one of them with two seeds; the accuracy of a run is 80 + its seed."""
    for head, seeds in (("cnn", (0, 1)), ("mlp", (3,))):
        for width in (64, 8, 1024):
            for seed in seeds:
                folder = make_run(f"{head}{width}{seed}", seed=seed, pred_aux_type=head, dim=width)
    return folder.parent


def test_a_line_for_each_choice_of_the_other_settings(study: Path) -> None:
    runs = find_runs([study])
    assert varied_number(group_runs(runs)) == "dim"
    figure = against_figure(runs)
    assert figure is not None
    (axes,) = figure.axes
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()] == [
        ([8, 64, 1024], [83] * 3), ([8, 64, 1024], [80.5] * 3),
    ]  # fmt: skip
    assert (axes.get_xlabel(), axes.get_xscale()) == ("dim", "log")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "dgl pred_aux_type=mlp", "dgl pred_aux_type=cnn",
    ]  # fmt: skip
    assert "against" in comparison_pictures(runs)


def test_two_values_words_and_switches_are_no_axis(make_run: MakeRun) -> None:
    for index, (head, on) in enumerate((("a", True), ("b", False), ("c", True))):
        folder = make_run(f"r{index}", pred_aux_type=head, dim=8 * (index % 2 + 1), ssl=on)
    runs = find_runs([folder.parent])
    assert varied_number(group_runs(runs)) is None and against_figure(runs) is None


def test_a_number_without_a_line_of_three_is_not_drawn(make_run: MakeRun) -> None:
    for index in range(3):
        folder = make_run(f"r{index}", pred_aux_type="abc"[index], dim=index + 1)
    assert against_figure(find_runs([folder.parent])) is None
