"""A curriculum through the real entry point: who judges, in which order images come, and resuming."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import cli
from engine.trained import Trained, load_trained, losses, rank
from tests.engine.test_run import without_times
from tests.engine.test_threads import after


@pytest.fixture
def teacher(run) -> Path:
    """A run that has ended."""
    assert run("--bp", "--normalization", "unit_gaussian", "--dropout_prob", "0.3") == 0
    return run.last


def judge(path: Path) -> Trained:
    return load_trained(path, cli.args_of_run(path), "best", torch.device("cpu"))


def test_the_teacher_judges_images_as_they_are(teacher: Path) -> None:
    trained = judge(teacher)
    images = trained.splits.train
    found_P = losses(trained, images)
    position = 41
    pixels_CHW = images.images_PHWC[position].permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (trained.splits.spec.mean, trained.splits.spec.std))
    trained.method.eval()
    logits_1N = trained.method(((pixels_CHW - mean) / std)[None])
    torch.testing.assert_close(found_P[position], F.cross_entropy(logits_1N, images.labels_P[position : position + 1]))
    easy_P, hard_P = (rank(trained, images, which) for which in ("easy_first", "hard_first"))
    assert sorted(easy_P.tolist()) == list(range(160))
    assert (found_P[easy_P].diff() >= 0).all()
    assert torch.equal(hard_P, easy_P.flip(0))


@pytest.mark.parametrize("which", ["easy_first", "hard_first"])
def test_a_run_has_the_ranking_of_its_teacher(run, teacher: Path, which: str) -> None:
    words = ["--curriculum", which, "--curriculum_teacher", str(teacher), "--curriculum_until", "1"]
    assert run("--dgl", *words) == 0
    trained = judge(teacher)
    assert torch.equal(run.state()["ranking"], rank(trained, trained.splits.train, which))
    steps = [record["step"] for record in run.records() if record["kind"] == "epoch"]
    assert steps == [5, 10, 15]  # as without it


@pytest.mark.parametrize("step", [2, 4, 8])
@pytest.mark.parametrize("method", ["--bp", "--dgl"])
def test_a_stopped_run_goes_on_with_the_same_bits_and_without_its_teacher(
    run, same, teacher: Path, monkeypatch: pytest.MonkeyPatch, step: int, method: str
) -> None:
    words = [method, "--curriculum", "easy_first", "--curriculum_teacher", str(teacher), "--dropout_prob", "0.3"]
    assert run(*words) == 0
    whole, records = run.state(), without_times(run.records())
    with monkeypatch.context() as patch:
        after(step, patch)
        assert run(*words) == 143
    folder = run.last
    shutil.rmtree(teacher)
    assert run.resume(str(folder)) == 0
    same(whole, run.state(folder))
    assert without_times(run.records(folder)) == records


def test_a_teacher_of_other_images_is_refused(run, teacher: Path, capsys) -> None:
    text = (teacher / "config.yaml").read_text()
    (teacher / "config.yaml").write_text(text.replace("dataset: digits", "dataset: mnist"))
    capsys.readouterr()
    assert run("--curriculum", "easy_first", "--curriculum_teacher", str(teacher)) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "--curriculum_teacher: that run saw mnist, but this one digits" in line
    assert run.folders == [teacher]
