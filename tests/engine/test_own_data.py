"""Own data through the real entry point: the same images give the same bits, wherever they come from and are kept."""

from __future__ import annotations

import errno
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import main
from datamodules import cache, digits
from datamodules.base import ImageSet
from datamodules.placement import Placement
from engine.layouts import choose_recorders, obstacle
from tests.engine.test_resume import stop_after
from tests.engine.test_run import without_times
from tests.methods.test_flags import parse
from utils import UsageError

Same = Callable[[dict, dict], None]
PLAIN = "--no_random_horizontal_flip"  # the default of digits alone


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "home", lambda: tmp_path / "cache")  # the variable would move matplotlib's cache too


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of the digits as grey images."""
    source, root = digits.read(), tmp_path_factory.mktemp("tree")
    for name, images, count in (("train", source.train, 300), ("test", source.test, 60)):
        for label in range(10):
            (root / name / str(label)).mkdir(parents=True)
        for number in range(count):
            label = int(images.labels_P[number])
            Image.fromarray(images.images_PHWC[number, :, :, 0].numpy()).save(
                root / name / str(label) / f"{number:04d}.png"
            )
    return root


def write_arrays(path: Path, train: ImageSet, test: ImageSet) -> str:
    arrays = {"x_train": train.images_PHWC[:], "x_test": test.images_PHWC[:]}
    arrays |= {"y_train": train.labels_P, "y_test": test.labels_P}
    np.savez(path, **{name: value.numpy() for name, value in arrays.items()})
    return str(path)


def test_arrays_of_the_digits_train_like_the_digits(run, same: Same, tmp_path: Path) -> None:
    source = digits.read()
    path = write_arrays(tmp_path / "x.npz", source.train, source.test)
    words = ["--dgl", "--val_size", "50"]
    assert run(*words) == 0
    expected, records = run.state(), without_times(run.records())
    assert run(*words, "--dataset", "arrays", "--data_dir", path, PLAIN) == 0
    same(expected, run.state())
    assert without_times(run.records()) == records
    assert main.main(["evaluate", str(run.last), "--device", "cpu", "--linear"]) == 0


def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "write", refuse)


# What draws views of its own, holds images out, ranks them, or reads them from another thread.
WORDS = [
    "--bp --random_erasing",
    "--dgl --val_size 40 --normalization unit_gaussian --random_labels 0.5",
    "--dgl --supcon_loss_weight 0.5 --simclr_loss_weight 0.5",
    "--dgl --layer_parallel threads --num_stages 2 --diagnostics alignment,probes,cka,confusion",
]


@pytest.mark.parametrize("words", WORDS)
def test_a_tree_in_a_file_trains_like_one_in_memory(
    run, same: Same, tree: Path, words: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    folder = [*words.split(), "--dataset", "folder", "--data_dir", str(tree)]
    with monkeypatch.context() as patch:
        in_memory(patch)
        assert run(*folder) == 0
    assert "read a batch ahead" not in capsys.readouterr().out
    expected, records = run.state(), without_times(run.records())
    assert run(*folder) == 0
    [path] = cache.home().rglob("*.npy")
    line = f"Training images: 160.0 KiB in {path}, read a batch ahead"  # 160 of 32 x 32
    assert line in capsys.readouterr().out
    same(expected, run.state())
    assert without_times(run.records()) == records


def test_a_tree_is_resumed_ranked_and_evaluated(
    run, same: Same, tree: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    folder = ["--dataset", "folder", "--data_dir", str(tree), "--image_size", "24", "--dgl"]
    assert run(*folder) == 0
    teacher = run.last
    words = [*folder, "--curriculum", "easy_first", "--curriculum_teacher", str(teacher)]
    assert run(*words) == 0
    whole = run.state()
    with monkeypatch.context() as patch:
        stop_after(7, signal.SIGINT, patch)
        assert run(*words) == 130
    stopped = run.last
    shutil.copytree(tree, "moved")  # its times are copied too, but another path has another cache
    assert run.resume(str(stopped), "--data_dir", "moved") == 0
    same(whole, run.state(stopped))
    for study in ("--linear", "--early_exit"):
        assert main.main(["evaluate", str(stopped), "--device", "cpu", study]) == 0
    compare = ["evaluate", str(stopped), "--device", "cpu", "--cka", str(teacher)]
    assert main.main(compare) == 2  # for all that their settings say
    assert "if they are the same by now, give --data_dir with their place" in capsys.readouterr().err
    assert main.main([*compare, "--data_dir", "moved"]) == 0
    capsys.readouterr()
    assert run.resume(str(stopped), "--image_size", "32") == 2
    assert "the run was started with 24" in capsys.readouterr().err


@pytest.mark.parametrize("other", [["--image_size", "28"], ["--data_dir", "elsewhere"]])
def test_runs_of_other_trees_or_sizes_are_not_put_together(run, tree: Path, capsys, other: list[str]) -> None:
    shutil.copytree(tree, "elsewhere")
    folder = ["--dataset", "folder", "--data_dir", str(tree), "--epochs", "1"]
    assert run(*folder) == 0
    teacher = run.last
    assert run(*folder, *other, "--curriculum", "easy_first", "--curriculum_teacher", str(teacher)) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"that run saw folder {tree}, but this one folder" in line


@pytest.mark.parametrize(("size", "left_out"), [("160", 0), ("170", 10)])
def test_what_an_epoch_leaves_out_is_said(run, capsys, size: str, left_out: int) -> None:
    assert run("--train_size", size, "--epochs", "1") == 0
    out = capsys.readouterr().out
    assert "160 images, device cpu" in out
    line = f"Every epoch leaves out {left_out} of {size} images, other ones each time: no full batch"
    assert (line in out) == (left_out > 0) and ("leaves out" in out) == (left_out > 0)


def test_the_least_train_size_is_that_of_the_least_batch(run, capsys) -> None:
    assert run("--train_size", "1") == 2
    assert "--train_size '1': allowed is a whole number, at least 2" in capsys.readouterr().err
    assert run("--train_size", "2") == 2
    assert "--batch_size 32: there are 2 training images, so it must be at most 2" in capsys.readouterr().err
    assert run("--train_size", "2", "--batch_size", "2", "--epochs", "1") == 0
    assert len(run.folders) == 1


def test_images_that_the_host_gathers_are_no_part_of_a_cuda_graph() -> None:
    feed = SimpleNamespace(device=torch.device("cuda:0"), placement=Placement(False, "elsewhere"))
    reason = "the host gathers the training images, which do not fit the GPU"
    assert obstacle(parse(()), feed) == reason
    assert choose_recorders(parse(()), feed) == (None, reason)
    for words, message in (
        (("--cuda_graph=on",), f"--cuda_graph on: {reason}; give --cuda_graph off or auto"),
        (("--dgl", "--layer_parallel=streams"), f"{reason}; give --layer_parallel off"),
    ):
        with pytest.raises(UsageError) as caught:
            choose_recorders(parse(words), feed)
        assert str(caught.value).endswith(message)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_run_whose_images_do_not_fit_the_gpu_has_the_same_bits(
    run, same: Same, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    words = ["--dgl", "--device", "cuda:0", "--deterministic", "--val_size", "50"]
    try:
        assert run(*words) == 0
        expected = run.state()
        monkeypatch.setattr("datamodules.placement.device_memory", lambda device: (0, 2**30))
        assert run(*words) == 0
    finally:
        torch.use_deterministic_algorithms(False)
    out = capsys.readouterr().out
    assert "gathered on the host a batch ahead, since they do not fit" in out
    assert "Steps: eager (the host gathers the training images, which do not fit the GPU)" in out
    same(expected, run.state())


def test_a_network_that_memory_cannot_hold_is_one_line(run, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("networks.build_backbone", refuse)
    assert run("--dgl") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line == "main.py: error: out of memory while data and network are loaded"
    assert run.folders == []
