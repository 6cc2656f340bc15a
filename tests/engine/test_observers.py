"""``--diagnostics`` from the command line: metrics, pictures and page, and a run that is the same with and without."""

from __future__ import annotations

import csv
import math

import pytest
import torch

ALL = ("--diagnostics", "alignment,probes,filters,cka,confusion")


def test_looking_changes_no_bit_of_a_run(run, same) -> None:
    words = ("--dgl", "--ssl", "--ssl_task", "rotate", "--dropout_prob", "0.3")
    run(*words)
    first = run.state()
    run(*words, *ALL)
    same(first, run.state())


@pytest.mark.pictures
def test_what_is_measured_is_in_the_record_the_plots_and_the_page(run) -> None:
    assert run("--dgl", *ALL) == 0
    epochs = [record for record in run.records() if record["kind"] == "epoch"]
    names = {name for name in epochs[0] if name.startswith("inside/")}
    blocks = ("block_00", "block_01", "block_02")
    assert names == {
        f"inside/{block}/{quantity}"
        for block in blocks
        for quantity in ("alignment", "gradient_ratio", "probe_accuracy")
    } | {"inside/block_00/cka_block_01", "inside/block_00/cka_block_02", "inside/block_01/cka_block_02"}
    for epoch in epochs:
        assert math.isclose(epoch["inside/block_02/alignment"], 1, abs_tol=1e-5)
        assert math.isclose(epoch["inside/block_02/gradient_ratio"], 1, abs_tol=1e-5)
        assert all(-1 <= epoch[f"inside/{block}/alignment"] <= 1 for block in blocks)
        assert all(0 <= epoch[name] <= 1 + 1e-9 for name in names if "cka" in name)
        assert all(5 < epoch[f"inside/{block}/probe_accuracy"] <= 100 for block in blocks)
    plots = {path.name for path in run.last.glob("plots/*")}
    assert {"alignment.svg", "probes.svg", "cka.svg", "filters.png", "confusion.png"} <= plots
    page = (run.last / "report.html").read_text()
    for words in (
        "At the same weights and on the same training images",
        "Linear classifiers fitted",
        "linear CKA",
        "Kernels of the first convolution",
        "Confusion matrix: predictions",
    ):
        assert words in page


@pytest.mark.pictures
def test_signals_and_feedback_are_in_the_record_and_on_the_page(run) -> None:
    assert run("--fa", "--diagnostics", "alignment", "--epochs", "1") == 0
    [epoch] = [record for record in run.records() if record["kind"] == "epoch"]
    assert all(0 <= epoch[f"inside/block_{block:02d}/signal_angle"] <= 180 for block in range(3))
    assert all(70 < epoch[f"inside/block_{block:02d}/feedback_angle"] < 110 for block in (1, 2))
    assert {"signal_cosine", "signal_ratio", "feedback_cosine", "feedback_ratio"} < {
        name.rpartition("/")[2] for name in epoch
    }
    page = (run.last / "report.html").read_text()
    for words in ("What a block receives at its output", "Of the weights through which a signal goes down"):
        assert words in page
    assert "works near back-propagation" not in page


@pytest.mark.pictures
def test_reconstructions_by_inverses_are_drawn_over_epochs(run) -> None:
    assert run("--tp", "--epochs", "1") == 0
    [epoch] = [record for record in run.records() if record["kind"] == "epoch"]
    assert all(epoch[f"train/block_{block:02d}/reconstruction_error"] > 0 for block in (1, 2))
    assert (run.last / "plots" / "reconstruction.svg").exists()
    assert "Mean square of what an inverse misses" in (run.last / "report.html").read_text()


def test_labels_and_guesses_are_counted_over_the_whole_test_split(run) -> None:
    assert run("--dgl", "--diagnostics", "confusion", "--wandb", "offline") == 0
    with (run.last / "confusion.csv").open() as stream:
        header, *rows = csv.reader(stream)
    assert header == ["label", *(row[0] for row in rows)]
    counts = torch.tensor([[int(word) for word in row[1:]] for row in rows])
    last = [record for record in run.records() if record["kind"] == "epoch"][-1]
    assert 100 * float(counts.trace() / counts.sum()) == pytest.approx(last["test/accuracy"], abs=1e-4)
    assert counts.shape == (10, 10) and counts.sum(1).tolist() == sorted(counts.sum(1).tolist(), reverse=True)
    media = [path.name for path in run.last.rglob("wandb/**/media/**/confusion*")]
    assert media
    assert all(name.endswith(".png") for name in media)  # the picture has the counts


def test_a_resumed_run_may_look_where_the_first_part_did_not(run) -> None:
    from engine.run.folder import RunFolder

    assert run("--dgl") == 0
    RunFolder(run.last).update_summary(status="interrupted")
    assert run.resume(str(run.last), "--diagnostics", "cka") == 0


def test_an_unknown_observer_is_refused(run, capsys) -> None:
    assert run("--diagnostics", "alignment,probe") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "--diagnostics 'alignment,probe': allowed is some of alignment, probes, filters, cka, confusion" in line


def test_alignment_looks_at_modules(run) -> None:
    assert run("--dgl", "--num_modules", "2", "--diagnostics", "alignment", "--epochs", "1") == 0
    [epoch] = [record for record in run.records() if record["kind"] == "epoch"]
    assert sum(name.endswith("/alignment") for name in epoch) == 2
