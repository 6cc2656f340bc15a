"""What ``evaluate`` finds out of runs, through the real entry point."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch

import cli
import main
import studies
from cli.build import evaluate_parser
from consts import TEST
from engine.evaluation import evaluate as measured
from engine.trained import load_trained
from studies import information


def evaluate(run, *words: str) -> int:
    return main.main(["evaluate", str(run.last), "--weights", "last", "--device", "cpu", *words])


def test_every_study_has_a_flag() -> None:
    flags = {action.dest for action in evaluate_parser()._actions}
    assert set(studies.names()) == flags - {"help", "runs", "weights", "device", "method", "model", "data_dir"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_loaded_run_lies_in_memory_and_measures_as_in_training(run, precision: str) -> None:
    assert run("--dgl", "--epochs", "2", "--precision", precision) == 0
    trained = load_trained(run.last, cli.args_of_run(run.last), "last", torch.device("cpu"))
    weights = [weight for weight in trained.method.parameters() if weight.dim() == 4]
    assert weights and all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    found = measured(trained.method, trained.feed(trained.splits.test), trained.precision).means(TEST)
    [*_, last] = (record for record in run.records() if record["kind"] == "epoch")
    assert found and found == {name: last[name] for name in found}


def table(path: Path) -> list[list[str]]:
    return [line.split(",") for line in path.read_text().splitlines()]


def test_information_is_measured_and_the_run_stays_as_it_was(run, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(information, "HELD_OUT_IMAGES", 100)
    run("--dgl", "--epochs", "1")
    before = {path: path.read_bytes() for path in run.last.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert evaluate(run, "--information") == 0
    assert all(path.read_bytes() == content for path, content in before.items())
    new = {str(path.relative_to(run.last)) for path in run.last.rglob("*") if path.is_file() and path not in before}
    assert new == {"information.csv", "plots/information.svg"}
    out = capsys.readouterr().out
    assert "learnt from 160 images of the train split in 10 epochs, measured on 100 of test" in out
    header, *rows = table(run.last / "information.csv")
    assert header[:3] == ["features", "reconstruction_error", "label_information"]
    assert [row[0] for row in rows] == ["constant", "image", "block_00", "block_01", "block_02"]
    for name, *values in rows:
        error, label, _, floor, entropy = map(float, values)
        assert entropy == pytest.approx(math.log(10))
        assert floor <= error and 0 <= label <= entropy, name
    assert float(rows[1][1]) < float(rows[0][1])  # the image is drawn better than what nothing is known of


@pytest.mark.parametrize(("words", "split"), [(["--val_size", "100"], "val"), ([], "test")])
def test_the_least_prefix_that_will_do_is_named(run, capsys, words: list[str], split: str) -> None:
    run("--critic", "--batch_size", "16", *words)
    before = {path: path.read_bytes() for path in run.last.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert evaluate(run, "--prefixes", "7.5") == 0
    out = capsys.readouterr().out
    assert all(path.read_bytes() == content for path, content in before.items())
    new = {str(path.relative_to(run.last)) for path in run.last.rglob("*") if path.is_file() and path not in before}
    assert new == {"prefixes.csv", "plots/prefixes.svg"}
    header, *rows = table(run.last / "prefixes.csv")
    measured = ["val_accuracy", "test_accuracy"][["val", "test"].index(split) :]
    assert header == ["network", "num_parameters", "multiply_adds", *measured]
    prefixes, sums = rows[:3], rows[3:]
    assert [row[0] for row in prefixes] == ["block_00", "block_01", "block_02"]
    assert [float(row[-1]) for row in prefixes] == pytest.approx(run.summary()["block_test_accuracy"])
    assert [row[0] for row in sums] == [
        f"sum of {kind} block_00 to {last}" for last in ("block_01", "block_02") for kind in ("logits", "softmax")
    ]
    good = [row for row in prefixes if float(row[3]) >= float(prefixes[-1][3]) - 7.5]
    for column, words_for_it in ((1, "parameters"), (2, "multiply-adds")):
        least = min(good, key=lambda row: int(row[column]))
        images = {"val": 100, "test": 360}[split]
        assert f"fewest {words_for_it} within 7.5 points (chosen on {images} images of {split}): {least[0]}:" in out
    assert ("there are no validation images, so the test images chose it" in out) == (split == "test")


def test_a_sum_of_one_prefix_is_left_out(run, capsys) -> None:
    run("--dgl", "--epochs", "1", "--num_modules", "2")
    assert evaluate(run, "--prefixes", "0") == 0
    names = [row[0] for row in table(run.last / "prefixes.csv")[1:]]
    assert names == ["block_00", "block_01", *(f"sum of {kind} block_00 to block_01" for kind in ("logits", "softmax"))]


def test_prefixes_need_exits(run, capsys) -> None:
    run("--bp", "--epochs", "1")
    capsys.readouterr()
    assert evaluate(run, "--prefixes", "1") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "--prefixes: this run has one exit only; it needs blocks with classifiers" in line
    assert not (run.last / "prefixes.csv").exists()


def test_similarities_of_a_run_with_itself_are_those_that_it_measured(run, capsys) -> None:
    run("--dgl", "--diagnostics", "cka")
    capsys.readouterr()
    assert evaluate(run, "--cka", str(run.last)) == 0
    assert "Linear CKA on 360 test images" in capsys.readouterr().out
    header, *rows = table(run.last / f"cka_{run.last.name}.csv")
    assert header == ["block", "block_00", "block_01", "block_02"]
    measured = run.records()[-1]
    for low in range(3):
        assert float(rows[low][1 + low]) == pytest.approx(1, abs=1e-12)
        for high in range(low + 1, 3):
            expected = measured[f"inside/block_{low:02d}/cka_block_{high:02d}"]
            assert float(rows[low][1 + high]) == pytest.approx(expected, abs=1e-6)
            assert rows[high][1 + low] == rows[low][1 + high]


def test_runs_of_other_networks_and_scales_can_be_compared(run, capsys) -> None:
    run("--dgl", "--epochs", "1", "--num_modules", "2", "--normalization", "none")
    other = run.last.rename(run.path / "x y;z")
    run("--dgl", "--epochs", "1")
    capsys.readouterr()
    assert evaluate(run, "--cka", str(other)) == 0
    assert "columns: of x y;z" in capsys.readouterr().out
    rows = table(run.last / "cka_x_y_z.csv")
    assert [len(rows), len(rows[0])] == [1 + 3, 1 + 2]
    assert (run.last / "plots" / "cka_x_y_z.svg").exists()


def test_a_run_on_other_images_is_refused(run, capsys) -> None:
    run("--dgl", "--epochs", "1")
    own, other = run.last, run.path / "other"
    shutil.copytree(own, other)
    text = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(text.replace("dataset: digits", "dataset: mnist"))
    capsys.readouterr()
    assert main.main(["evaluate", str(own), "--cka", str(other)]) == 2
    printed = capsys.readouterr()
    assert "test/" not in printed.out  # at once
    assert printed.err.splitlines() == [
        "main.py: error: --cka: that run saw mnist, but this one digits; they must have been tested on the same images"
    ]


def test_a_study_that_cannot_be_written_ends_in_one_line(run, capsys) -> None:
    run("--bp", "--epochs", "1")
    shutil.rmtree(run.last / "plots")
    capsys.readouterr()
    assert evaluate(run, "--cka", str(run.last)) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "cannot write" in line and "No such file or directory" in line


def test_linear_evaluation_of_a_run_without_labels_is_what_its_probes_measured(run, capsys) -> None:
    alone = ["--dgl", "--ssl", "--pred_loss_weight", "0", "--ssl_loss_weight", "0", "--simclr_loss_weight", "1"]
    run(*alone, "--diagnostics", "probes", "--epochs", "1")
    before = {path: path.read_bytes() for path in run.last.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert evaluate(run, "--linear") == 0
    assert all(path.read_bytes() == content for path, content in before.items())
    new = {str(path.relative_to(run.last)) for path in run.last.rglob("*") if path.is_file() and path not in before}
    assert new == {"linear.csv", "plots/linear.svg"}
    out = capsys.readouterr().out
    assert "fitted to 160 images of the train split, measured on 360 of test" in out
    header, *rows = table(run.last / "linear.csv")
    assert header == ["features", "test_accuracy"]
    assert [row[0] for row in rows] == ["image", "block_00", "block_01", "block_02"]
    measured = run.records()[-1]
    for name, value in rows[1:]:
        assert float(value) == pytest.approx(measured[f"inside/{name}/probe_accuracy"], abs=1e-9)
        assert f"  {name}  accuracy {float(value):6.2f}" in out
    assert f"the network's own classifier: accuracy {measured['test/accuracy']:.2f}" in out
