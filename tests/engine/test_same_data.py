"""A run goes on, and is measured, where its data lie now; other data are refused."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml

import main
from datamodules import cache, digits
from tests.engine.test_resume import stop_after

SHARED = ["--dataset", "arrays", "--no_random_horizontal_flip", "--dgl", "--val_size", "40"]


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "home", lambda: tmp_path / "cache")


@pytest.fixture
def arrays(tmp_path: Path) -> dict[str, np.ndarray]:
    """Four of the digits' classes; a file of them lies in ``first.npz``."""
    source = digits.read()
    found: dict[str, np.ndarray] = {"class_names": np.array(["zero", "one", "two", "three"])}
    for name, images in (("train", source.train), ("test", source.test)):
        kept = images.labels_P < 4
        found |= {f"x_{name}": images.images_PHWC[:][kept].numpy(), f"y_{name}": images.labels_P[kept].numpy()}
    np.savez(tmp_path / "first.npz", **found)
    return found


@pytest.fixture
def stopped(run, arrays, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run on ``first.npz`` that was stopped; the file has moved to ``second.npz`` since."""
    with monkeypatch.context() as patch:
        stop_after(6, signal.SIGINT, patch)
        assert run(*SHARED, "--data_dir", "first.npz") == 130
    shutil.move("first.npz", "second.npz")
    return run.last


def evaluate(folder: Path, *words: str) -> int:
    return main.main(["evaluate", str(folder), "--device", "cpu", "--weights", "last", *words])


def data_dir(folder: Path) -> str:
    return yaml.safe_load((folder / "config.yaml").read_text())["data"]["data_dir"]


def test_a_run_goes_on_where_its_data_are_now(run, same, stopped: Path, capsys) -> None:
    before = (stopped / "config.yaml").read_text()
    assert run(*SHARED, "--data_dir", "second.npz") == 0
    whole = run.state()
    capsys.readouterr()
    assert run.resume(str(stopped), "--data_dir", "second.npz") == 0
    line = f"The data of {stopped} are read from second.npz; it was started with first.npz\n"
    assert line in capsys.readouterr().out and line in (stopped / "run.log").read_text()
    same(whole, run.state(stopped))
    assert (stopped / "config.yaml").read_text() == before.replace("first.npz", "second.npz")
    assert evaluate(stopped) == 0  # its settings have the new place
    assert "are read from" not in capsys.readouterr().out


def test_a_run_is_measured_where_its_data_are_now_and_stays_as_it_was(run, stopped: Path, capsys) -> None:
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    assert run(*SHARED, "--data_dir", "second.npz", "--epochs", "1") == 0
    other = run.last
    capsys.readouterr()
    assert evaluate(stopped, "--data_dir", "second.npz", "--cka", str(other)) == 0
    printed = capsys.readouterr().out
    assert printed.count("are read from second.npz; it was started with first.npz") == 1
    assert "Linear CKA" in printed
    assert all(path.read_bytes() == content for path, content in before.items())
    assert data_dir(stopped) == "first.npz"


def test_data_that_are_gone_are_asked_for(run, stopped: Path, capsys) -> None:
    for start in (evaluate, lambda folder: run.resume(str(folder))):
        capsys.readouterr()
        assert start(stopped) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert line == (
            f"main.py: error: data set arrays not found: no such file (looked in {Path('first.npz').absolute()}); give "
            f"--data_dir, where the data of {stopped} are on this machine"
        )


def without_one(arrays: dict[str, np.ndarray], split: str) -> dict[str, np.ndarray]:
    return arrays | {f"{kind}_{split}": arrays[f"{kind}_{split}"][1:] for kind in "xy"}


OTHER = [
    (
        lambda arrays: arrays | {"class_names": np.array(["zero", "one", "two", "drei"])},
        "the classes are zero, one, two, drei, and were zero, one, two, three",
    ),
    (
        lambda arrays: arrays | {name: arrays[name][:, :, :24] for name in ("x_train", "x_test")},
        "the images are 32 x 24 x 1 (height x width x channels), and were 32 x 32 x 1",
    ),
    # Images that the run does not use count as well: which ones it uses depends on all of them.
    (lambda arrays: without_one(arrays, "train"), "train images of class "),
    (lambda arrays: without_one(arrays, "test"), "test images of class "),
]


def test_other_data_are_refused(run, arrays, stopped: Path, capsys) -> None:
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    changed = f"first.npz: the data have changed since {stopped} was started: "
    others = f"--data_dir other.npz: these are not the data of {stopped}: "
    for change, words in OTHER:
        np.savez("first.npz", **change(arrays))
        shutil.copy("first.npz", "other.npz")
        for start, code, expected in (
            (lambda: evaluate(stopped), 1, changed),
            (lambda: evaluate(stopped, "--data_dir", "other.npz"), 2, others),
            (lambda: run.resume(str(stopped)), 1, changed),
            (lambda: run.resume(str(stopped), "--data_dir", "other.npz"), 2, others),
        ):
            capsys.readouterr()
            assert start() == code
            [line] = capsys.readouterr().err.splitlines()
            assert line.startswith(f"main.py: error: {expected}") and words in line
            assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


def test_what_a_run_folder_does_not_say_is_not_compared(arrays, stopped: Path, capsys) -> None:
    np.savez("other.npz", **without_one(arrays, "test"))
    facts = stopped / "data.json"
    for content in ("{", "[]", '{"class_names": 1, "image_shape": 2, "train": 3, "test": 4}', None):
        facts.unlink() if content is None else facts.write_text(content)
        capsys.readouterr()
        assert evaluate(stopped, "--data_dir", "other.npz") == 0
        assert "and has no data.json that would tell whether they are the same" in capsys.readouterr().out


def test_numbers_of_a_strange_length_are_a_difference(run, stopped: Path, capsys) -> None:
    facts = json.loads((stopped / "data.json").read_text())
    (stopped / "data.json").write_text(json.dumps(facts | {"test": facts["test"][:2]}))
    assert evaluate(stopped, "--data_dir", "second.npz") == 2
    assert "there are 36 test images of class two, and were None" in capsys.readouterr().err


def test_data_that_come_with_the_code_lie_nowhere_else(run, capsys) -> None:
    assert run("--dgl", "--epochs", "1") == 0
    capsys.readouterr()
    assert main.main(["evaluate", str(run.last), "--data_dir", "x"]) == 2
    line = f"--data_dir x: {run.last} was trained on digits, which comes with the code; leave it out\n"
    assert capsys.readouterr().err.endswith(line)
    assert main.main(["--resume", str(run.last), "--data_dir", "x"]) == 2
    assert "--data_dir has no effect: it needs --dataset " in capsys.readouterr().err


def test_auto_does_not_take_a_run_on_other_data_of_ones_own(run, arrays, stopped: Path, capsys) -> None:
    np.savez("other.npz", **arrays)
    assert run(*SHARED, "--data_dir", "other.npz", "--resume", "auto") == 0
    assert "no unfinished run of these settings" in capsys.readouterr().out
    assert run.last != stopped
    shutil.move("second.npz", "first.npz")
    assert run(*SHARED, "--data_dir", str(Path("first.npz").absolute()), "--resume", "auto") == 0
    assert f"going on with {stopped}" in capsys.readouterr().out
