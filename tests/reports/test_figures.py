"""Figures hold what was measured, and the same data give the same bytes."""

from __future__ import annotations

import html
import json
import re
import struct
import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from reports.canvas import PALETTE, render, spread_out
from reports.figures import run_pictures
from reports.overview import comparison_cards, comparison_figure
from reports.runs import find_runs, load_run

MakeRun = Callable[..., Path]


def values_of(svg: str) -> list[dict[str, Any]]:
    """What a page's script reads in a figure."""
    return json.loads(html.unescape(re.findall('data-values="([^"]*)"', svg)[0]))


def test_a_run_has_figures_of_well_formed_svg(make_run: MakeRun) -> None:
    pictures = run_pictures(load_run(make_run("one")))
    assert list(pictures) == ["accuracy", "loss", "blocks", "last", "rate", "throughput"]
    for svg in pictures.values():
        assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert ">test 80.0 %<" in pictures["accuracy"] and ">train 82.0 %<" in pictures["accuracy"]
    assert ">test 0.625<" in pictures["loss"]
    assert all(f">{text}<" in pictures["blocks"] for text in ("block 0", "block 2"))
    assert all(f">{text}<" in pictures["last"] for text in ("60.0", "70.0", "80.0"))


def test_all_figures_of_a_page_have_one_size_and_one_size_of_type(make_run: MakeRun, study: Path) -> None:
    cards = [*run_pictures(load_run(make_run("one"))).values(), *comparison_cards(find_runs([study])).values()]
    assert {re.findall(r'<svg [^>]*viewBox="([^"]*)"', svg)[0] for svg in cards} == {"0 0 288 201.6"}
    assert {size for svg in cards for size in re.findall(r"font-size: ([\d.]+)px", svg)} == {"9"}


def test_a_figure_holds_the_values_that_it_shows_where_it_shows_them(make_run: MakeRun) -> None:
    pictures = run_pictures(load_run(make_run("one")))
    [panel] = values_of(pictures["accuracy"])
    curves = {curve["name"]: curve["points"] for curve in panel["curves"]}
    assert panel["x"] == "epoch"
    assert [point[2:] for point in curves["test"]] == [
        ["1", "65.00 %"], ["2", "70.00 %"], ["3", "75.00 %"], ["4", "80.00 %"],
    ]  # fmt: skip
    left, top, right, bottom = panel["box"]
    assert all(left < x < right and top < y < bottom for x, y, *_ in curves["test"])
    path = re.findall(r"M ([\d.]+) ([\d.]+) \nL ([\d.]+) ([\d.]+) \nL", pictures["accuracy"])  # the drawn curves
    drawn = {tuple(map(float, corner)) for corner in path}
    assert any(corner == pytest.approx([*curves["test"][0][:2], *curves["test"][1][:2]], abs=0.06) for corner in drawn)
    [rate] = values_of(pictures["throughput"])
    assert [point[2:] for point in rate["curves"][0]["points"]] == [[str(step), "300"] for step in (5, 15, 25, 35)]


def test_back_propagation_has_no_figures_of_its_blocks(make_run: MakeRun) -> None:
    assert not {"blocks", "last"} & set(run_pictures(load_run(make_run("one", "bp"))))


def test_a_run_without_epochs_says_so(make_run: MakeRun) -> None:
    folder = make_run("one")
    for name in ("metrics.jsonl", "summary.json"):
        (folder / name).unlink()
    pictures = run_pictures(load_run(folder))
    assert list(pictures) == ["accuracy", "loss"]
    for svg in pictures.values():
        assert ">no values to show yet<" in svg


def draw(root: Path, path: Path) -> None:
    path.write_bytes(render(comparison_figure(find_runs([root])), path.suffix[1:]))


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_same_data_give_the_same_bytes(
    study: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib

    draw(study, tmp_path / f"a.{kind}")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    with matplotlib.rc_context(
        {"axes.labelsize": 20, "xtick.direction": "in", "savefig.dpi": 10}
    ):  # the user's own taste
        draw(study, tmp_path / f"b.{kind}")
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_the_png_is_sharp_at_the_width_of_a_readme(study: Path, tmp_path: Path) -> None:
    draw(study, tmp_path / "a.png")
    width, _ = struct.unpack(">II", (tmp_path / "a.png").read_bytes()[16:24])
    assert width == 1800


def test_the_comparison_shows_every_group_once(study: Path) -> None:
    figure = comparison_figure(find_runs([study]))
    left, right = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["bp", "dgl, 2 runs"]
    across, point, blocks = left.get_lines()
    assert set(across.get_ydata()) == {82} and across.get_color() == PALETTE[0]
    assert (list(point.get_xdata()), list(point.get_ydata())) == ([2], [82])
    assert list(blocks.get_ydata()) == [60.5, 70.5, 80.5] and blocks.get_color() == PALETTE[1]
    train, test = right.get_lines()[2:]
    assert (list(train.get_ydata()), list(test.get_ydata())) == ([2, 1, 2 / 3, 0.5], [2.5, 1.25, 2.5 / 3, 0.625])
    assert test.get_linewidth() > 2 * train.get_linewidth()
    titles = [axes.get_title(loc="left") for axes in (left, right)]
    assert titles == ["test accuracy (%) by block", "loss of the network: train thin, test thick"]
    assert (left.get_xlabel(), right.get_xlabel()) == ("block", "epoch")


def test_a_network_trained_as_a_whole_is_a_point_at_the_mean_of_its_runs(study: Path, make_run: MakeRun) -> None:
    make_run("bp_b", "bp", seed=5)
    across, point, _ = comparison_figure(find_runs([study])).axes[0].get_lines()
    assert set(across.get_ydata()) == set(point.get_ydata()) == {83.5}


def test_the_band_reaches_from_the_lowest_to_the_highest_run(study: Path) -> None:
    (band,) = [item for item in comparison_figure(find_runs([study])).axes[0].collections if len(item.get_paths())]
    corners = band.get_paths()[0].vertices
    assert {(x, y) for x, y in corners if x == 2} == {(2, 80), (2, 81)}


def test_hostile_names_are_drawn_as_they_are(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", "_m", note="$x^{$ --><script>")
    root = make_run("b", "_m", note="\x00").parent
    draw(root, tmp_path / "a.svg")
    tree = ET.parse(tmp_path / "a.svg")
    assert not [element for element in tree.iter() if element.tag.endswith("script")]


def test_more_groups_than_colours_stay_distinct(make_run: MakeRun) -> None:
    for index in range(8):
        root = make_run(f"run{index}", learning=index).parent
    lines = comparison_figure(find_runs([root])).axes[0].get_lines()
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 8


def test_a_diverged_run_keeps_its_finite_part(make_run: MakeRun) -> None:
    folder = make_run("one")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    broken = [line | {"test/loss": None, "train/loss": float("nan")} if line["epoch"] > 2 else line for line in lines]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, broken)))
    svg = run_pictures(load_run(folder))["loss"]
    assert ">test 1.250<" in svg and ">train 1.000<" in svg


@pytest.mark.parametrize(
    ("places", "moved"),
    [
        ([0.2, 0.8], [0.2, 0.8]),
        ([0.5, 0.5], [0.45, 0.55]),
        ([0.99, 1.0], [0.9, 1.0]),
        ([0.0, 0.01, 0.02], [0.0, 0.1, 0.2]),
        ([0.3], [0.3]),
        ([], []),
    ],
)
def test_labels_move_apart_and_stay_inside(places: list[float], moved: list[float]) -> None:
    assert spread_out(places, 0.1) == pytest.approx(moved)


def test_too_many_labels_still_do_not_overlap() -> None:
    moved = spread_out([0.5] * 30, 0.1)
    assert all(upper - lower == pytest.approx(0.1) for lower, upper in pairwise(moved))
