"""When figures are refused, and what a table says."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import tables
from benchmarks.peers import Setting
from benchmarks.throughput import COLUMNS, Result, flops_per_image, problems, rows

SETTING = Setting("BasicCNN", batch_size=64, num_steps=10)
STEADY = [1.0, 1.01, 1.02, 1.0, 9.0]  # one stall


def test_steady_figures_are_accepted() -> None:
    assert problems([Result("thesis", 2.0, STEADY), Result("dgl", 2.05, STEADY), Result("bp", 1.0, STEADY)]) == []


def test_another_loss_is_refused() -> None:
    (line,) = problems([Result("thesis", 2.0, STEADY), Result("plain", 2.05, STEADY)])
    assert line.startswith("plain: mean loss 2.0500, but thesis has 2.0000")


def test_other_methods_and_heads_have_losses_of_their_own() -> None:
    names = ("bp", "dgl:pred_aux_type=cnn", "dgl", "tuned")
    (line,) = problems([Result(name, loss, STEADY) for name, loss in zip(names, (1.0, 3.0, 2.0, 2.5), strict=True)])
    assert line.startswith("tuned: mean loss 2.5000, but dgl has 2.0000")


def test_a_wide_spread_is_refused() -> None:
    (line,) = problems([Result("dgl", 2.0, [1.0, 1.0, 1.4, 1.4])])
    assert "1.40 times" in line


def test_rows_relate_to_the_first_peer_and_to_the_roof() -> None:
    results = [Result("thesis", 2.0, [4.0] * 3), Result("dgl", 2.0, [1.0] * 3), Result("bp", 2.0, [2.0] * 3)]
    thesis, dgl, bp = rows(SETTING, results, {"conv_bf16": 1e12})
    assert (thesis["images_per_second"], dgl["ratio"], bp["ratio"]) == (160, 4, 2)
    assert dgl["percent_of_roof"] == pytest.approx(100 * 640 * flops_per_image("BasicCNN", "dgl") / 1e12)
    assert bp["roof"] < dgl["roof"]  # no input gradients between blocks


def test_operations_of_a_training_step() -> None:
    """The sheet of the field counts 0.829 GFLOP an image for back-propagation on BasicCNN."""
    assert flops_per_image("BasicCNN", "bp") == pytest.approx(0.829e9, rel=0.01)


def test_table_csv_and_chart(tmp_path: Path) -> None:
    table = rows(SETTING, [Result("thesis", 2.0, [4.0] * 3), Result("dgl", 2.0, [1.0] * 3)], {"conv_bf16": 1e12})
    assert tables.text(table, COLUMNS).splitlines()[2].split()[:2] == ["thesis", "160"]
    tables.write_csv(tmp_path / "out" / "figures.csv", table)
    again = tables.read_csv(tmp_path / "out" / "figures.csv")
    assert [row["images_per_second"] for row in again] == [160, 640]
    tables.draw_bars(tmp_path / "bars.svg", again)
    assert "<!-- BasicCNN, batch 64 -->" in (tmp_path / "bars.svg").read_text()  # matplotlib draws letters as paths
