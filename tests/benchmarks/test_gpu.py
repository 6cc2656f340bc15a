"""The benchmark of the GPU runs on a CPU with the twin of CUDA graphs, and fails where it must."""

from __future__ import annotations

import csv
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import DIFFERENCES, Row
from utils import UsageError

CHECKS = {"environment", "bits", "waits", "calibration", "speed", "memory"}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "gpu.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_every_check_has_a_figure_and_the_bits_are_equal(tmp_path: Path, capsys) -> None:
    assert gpu.run(Namespace(device="cpu", out=tmp_path)) == 0
    found = rows(tmp_path)
    assert {row["check"] for row in found} == CHECKS
    assert all(float(row["median"]) > 0 for row in found if row["check"] in ("speed", "calibration"))
    differences = [float(row["median"]) for row in found if row["check"] == "bits"]
    assert differences and not any(differences)
    assert "x eager" in capsys.readouterr().out


@pytest.mark.parametrize(("count", "code"), [(0, 0), (2, 1)])
def test_other_bits_are_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int, code: int) -> None:
    monkeypatch.setattr(gpu, "measure", lambda device: iter([Row("bits", "case", count, DIFFERENCES)]))
    assert gpu.run(Namespace(device="cpu", out=tmp_path)) == code


def test_what_was_measured_before_a_failure_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def measure(device):
        yield Row("bits", "case", 0, DIFFERENCES)
        raise RuntimeError("out of luck")

    monkeypatch.setattr(gpu, "measure", measure)
    with pytest.raises(RuntimeError, match="out of luck"):
        gpu.run(Namespace(device="cpu", out=tmp_path))
    assert [row["check"] for row in rows(tmp_path)] == ["bits"]


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this machine has"):
        gpu.run(Namespace(device=f"cuda:{torch.cuda.device_count() + 3}", out=tmp_path))
