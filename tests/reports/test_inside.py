"""Figures of the diagnostics: only for runs that have them, readable as text, and the same bytes every time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from consts import FEEDBACK, SIGNAL
from reports.blocks import near_back_propagation
from reports.canvas import render
from reports.figures import run_pictures
from reports.inside import inside_figures
from reports.page import write_page
from reports.runs import Run, load_run
from reports.table import comparison_table

PLAIN = {"accuracy", "loss", "blocks", "last", "rate", "throughput"}


@pytest.fixture
def observed(make_run):
    """A run with values of every observer; ratios of block 0 are far below the others'."""
    folder = make_run("seen")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["kind"] == "epoch":
            for block in range(3):
                name = f"inside/block_{block:02d}"
                line |= {f"{name}/alignment": block / 2, f"{name}/gradient_ratio": 10.0 ** (block - 2)}
                line |= {f"{name}/probe_accuracy": 50.0 + block}
                line |= {f"{name}/{word}": 10.0 + block for word in (*SIGNAL, *FEEDBACK)}
                line |= {f"train/block_{block:02d}/reconstruction_error": 0.5}
                line |= {f"{name}/cka_block_{other:02d}": 0.25 * other for other in range(block + 1, 3)}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return load_run(folder)


def test_a_run_without_diagnostics_has_no_such_figure(make_run) -> None:
    run = load_run(make_run("plain"))
    assert inside_figures(run) == {}
    assert set(run_pictures(run)) == PLAIN


def test_a_run_with_diagnostics_has_them_all_the_same_every_time(observed) -> None:
    first = run_pictures(observed)
    assert set(first) == PLAIN | {
        "alignment", "gradient_ratio", "signal_angle", "signal_ratio", "feedback_angle", "feedback_ratio",
        "reconstruction", "probes", "probes_last", "cka",
    }  # fmt: skip
    assert run_pictures(observed) == first


def test_labels_of_a_logarithmic_axis_are_numbers_and_stand_beside_their_curves(observed) -> None:
    figure = inside_figures(observed)["gradient_ratio"](observed)
    [right] = figure.axes
    render(figure, "svg")
    assert {"0.01", "0.1", "1"} <= {label.get_text() for label in right.get_yticklabels()}
    places = {text.get_text(): text.get_position()[1] for text in right.texts}
    assert places["block 1"] == pytest.approx((places["block 0"] + places["block 2"]) / 2, abs=0.01)


def test_similarities_stand_on_both_sides_of_the_diagonal(observed) -> None:
    figure = inside_figures(observed)["cka"](observed)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["1.00", "0.25", "0.50", "0.25", "1.00", "0.50", "0.50", "0.50", "1.00"]


def with_cosines(folder: Path, *cosines: float) -> Run:
    """The run in ``folder``, with these cosines by block after its last epoch, and others before."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    for line in epochs:
        values = cosines if line is epochs[-1] else [0.5] * len(cosines)
        line |= {f"inside/block_{block:02d}/alignment": value for block, value in enumerate(values)}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return load_run(folder)


@pytest.mark.parametrize(
    ("method", "cosines", "is_near"),
    [
        ("dfa", (0.9987, 0.995, 1.0), True),
        ("dfa", (0.9987, 0.99, 1.0), False),
        ("dfa", (), False),
        ("bp", (1.0, 1.0), False),
    ],
)
def test_a_rule_near_back_propagation_is_told_so(
    method: str, cosines: tuple[float, ...], is_near: bool, make_run, tmp_path: Path
) -> None:
    run = with_cosines(make_run("one", method=method), *cosines)
    words = "has a cosine above 0.99 with back-propagation&#x27;s (the least 0.9950)"
    assert bool(near_back_propagation(run)) == is_near
    write_page([run], tmp_path / "one.html", "one")
    write_page([run, load_run(make_run("two"))], tmp_path / "both.html", "both")
    for page in ("one.html", "both.html"):
        assert (words in (tmp_path / page).read_text()) == is_near
    assert ("one: works near back-propagation" in comparison_table([run])) == is_near
