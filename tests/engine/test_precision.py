"""Precision and determinism of whole runs: what is set before the first product, what is recorded, what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import cli
import main
from engine import devices
from engine.devices import CUBLAS_WORKSPACE, tf32_flags
from engine.run.folder import find_unfinished

PRODUCTS = {"convolution", "mm", "addmm", "bmm", "baddbmm", "conv2d", "linear", "matmul"}  # whole in inference mode
STRICT = {"matmul": False, "convolution": False}


@pytest.fixture(autouse=True)
def torchs_defaults(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of a new process: convolutions in TF32, nothing deterministic."""
    monkeypatch.delenv(CUBLAS_WORKSPACE[0], raising=False)
    devices._set_tf32(matmul=False, convolution=True)
    yield
    devices.set_determinism(False)


class Products(TorchDispatchMode):
    """Notes what is set at every convolution and matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[bool, str | None, dict[str, bool]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._opname in PRODUCTS:
            workspace = os.environ.get(CUBLAS_WORKSPACE[0])
            self.seen.append((torch.are_deterministic_algorithms_enabled(), workspace, tf32_flags()))
        return func(*args, **kwargs or {})


def test_all_is_set_before_a_curriculums_teacher_computes_its_first_product(run) -> None:
    """cuBLAS reads its workspace's size once, so afterwards is too late."""
    assert run("--bp", "--epochs", "1") == 0
    words = ["--deterministic", "--curriculum", "easy_first", "--curriculum_teacher", str(run.last), "--epochs", "1"]
    devices.set_determinism(False)
    devices._set_tf32(matmul=False, convolution=True)
    with Products() as products:
        assert run("--bp", *words) == 0
    assert products.seen
    assert all(seen == (True, CUBLAS_WORKSPACE[1], STRICT) for seen in products.seen)


@pytest.mark.parametrize("deterministic", [True, False])
def test_evaluate_computes_as_the_run_did(run, deterministic: bool) -> None:
    assert run("--dgl", "--epochs", "1", *["--deterministic"] * deterministic) == 0
    devices.set_determinism(False)
    devices._set_tf32(matmul=False, convolution=True)
    with Products() as products:
        assert main.main(["evaluate", str(run.last), "--device", "cpu", "--linear"]) == 0
    assert products.seen
    assert {(is_set, flags == STRICT) for is_set, _, flags in products.seen} == {(deterministic, True)}


def test_the_environment_of_a_run_has_its_precision(run) -> None:
    assert run("--precision", "bf16", "--epochs", "1") == 0
    environment = json.loads((run.last / "environment.json").read_text())
    assert (environment["precision"], environment["tf32"]) == ("bf16", STRICT)


@pytest.fixture
def tf32_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU passes for a GPU that has TF32; it computes in float32 all the same."""
    monkeypatch.setattr(devices, "tf32_obstacle", lambda device: "")


def as_of_a_gpu(folder: Path) -> Path:
    """The run, with settings as if a GPU had trained it."""
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("device: cpu", "device: cuda:0"))
    return folder


def test_a_run_in_tf32_trains_and_tests_in_it_and_says_so(run, tf32_anywhere: None) -> None:
    with Products() as products:
        assert run("--dgl", "--device", "auto", "--precision", "tf32", "--epochs", "1") == 0
    assert {tuple(flags.values()) for _, _, flags in products.seen} == {(True, True)}
    environment = json.loads((run.last / "environment.json").read_text())
    assert (environment["precision"], environment["tf32"]) == ("tf32", {"matmul": True, "convolution": True})
    assert tf32_flags() == STRICT


def test_probes_of_a_run_in_tf32_are_in_fp32(run, tf32_anywhere: None) -> None:
    words = ["--device", "auto", "--precision", "tf32", "--epochs", "1", "--diagnostics", "probes"]
    with Products() as products:
        assert run("--dgl", *words) == 0
    assert {tuple(flags.values()) for _, _, flags in products.seen} == {(True, True), (False, False)}


def test_evaluate_says_that_a_device_has_no_tf32(run, tf32_anywhere: None, monkeypatch, capsys) -> None:
    assert run("--dgl", "--device", "auto", "--precision", "tf32", "--epochs", "1") == 0
    monkeypatch.undo()
    capsys.readouterr()
    assert main.main(["evaluate", str(as_of_a_gpu(run.last)), "--device", "cpu"]) == 0
    said = "Trained in tf32, measured in fp32 on cpu: TF32 needs a GPU of compute capability 8.0 or higher"
    assert capsys.readouterr().out.count(said) == 1


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("cpu", " and --device cpu exclude each other: TF32 is arithmetic of GPUs; give --precision fp32"),
        ("auto", ": TF32 needs a GPU of compute capability 8.0 or higher; allowed on cpu is auto, fp32 or bf16"),
    ],
)
def test_tf32_without_such_a_gpu_is_one_line(run, capsys, monkeypatch, device: str, said: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run("--dgl", "--precision", "tf32", "--device", device) == 2
    assert capsys.readouterr().err.splitlines() == [f"main.py: error: --precision tf32{said}"]
    assert run.folders == []


@pytest.mark.parametrize(("before", "found"), [("fp32", True), ("tf32", False)])
def test_resuming_with_auto_finds_what_auto_may_have_chosen(run, tf32_anywhere: None, before: str, found: bool) -> None:
    words = ["--dgl", "--device", "auto", "--precision", before]
    assert run(*words) == 0
    run.last.joinpath("summary.json").write_text("{}")
    args = cli.args_of_run(as_of_a_gpu(run.last))
    wanted = args.model_copy(update={"run": args.run.model_copy(update={"precision": "auto"})})
    assert (find_unfinished(run.path, wanted) is not None) == found
