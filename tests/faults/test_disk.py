"""Disks that are full, or that cannot be written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from engine.run.lines import Lines
from tests.faults import inject
from tests.faults.conftest import last_state, only_run, status
from tests.faults.disks import read_only, small_disk
from tests.faults.process import ROOT, SMALL, finish
from tests.faults.test_resume import records

WORDS = [*SMALL, "--dgl", "--log_interval", "1"]
SIZE = 4 * 2**20
Same = Callable[[dict, dict], None]
Whole = Callable[..., Path]


def test_a_full_disk_ends_in_one_line_and_the_run_goes_on_later(tmp_path: Path, whole: Whole, same: Same) -> None:
    with small_disk(tmp_path / "disk", SIZE) as disk:
        run = finish([*WORDS, "--path", "disk"], tmp_path, partial(inject.fill_disk, 5, None))
        [line] = run.errors()
        [path] = [path for path in disk.iterdir() if path.is_dir()]
        assert run.exit_code() == 1
        assert line == (
            f"main.py: error: cannot write the checkpoint disk/{path.name}/checkpoints/last.ckpt: "
            "No space left on device"
        )
        assert run.warnings("cannot write metrics.jsonl: No space left on device") == 1
        assert last_state(path)["step"] == 5
        inject.filler(disk).unlink()
        assert finish(["--resume", str(path)], tmp_path).exit_code() == 0
        expected = whole("--dgl", "--log_interval", "1")
        same(last_state(expected), last_state(path))
        assert records(path) == records(expected)


def test_a_disk_that_is_full_for_a_while_costs_one_warning_and_no_line(
    tmp_path: Path, whole: Whole, same: Same
) -> None:
    steps = ["--batch_size", "8"]  # 20 an epoch: their lines are more than what is left of the file's last block
    with small_disk(tmp_path / "disk", SIZE) as disk:
        run = finish([*WORDS, *steps, "--path", "disk"], tmp_path, partial(inject.fill_disk, 21, 38))
        assert (run.exit_code(), run.errors()) == (0, [])
        assert run.warnings("No space left") == 1
        [path] = disk.iterdir()
        expected = whole("--dgl", "--log_interval", "1", *steps)
        same(last_state(expected), last_state(path))
        assert records(path) == records(expected)
        assert "Epoch 2/3" in (path / "run.log").read_text()


def test_a_limit_on_file_size_is_a_full_disk_too(tmp_path: Path) -> None:
    """Needs no right to mount."""
    run = finish(WORDS, tmp_path, partial(inject.limit_file_size, 5, 1000))
    [line] = run.errors()
    assert run.exit_code() == 1
    assert "last.ckpt: File too large" in line
    assert run.warnings("cannot write metrics.jsonl: File too large") == 1
    assert last_state(only_run(tmp_path))["step"] == 5
    assert not list((only_run(tmp_path) / "checkpoints").glob(".*"))


def test_a_folder_that_cannot_be_written_is_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    with read_only(tmp_path / "closed"):
        run = finish([*WORDS, "--path", "closed"], tmp_path)
    assert run.exit_code() == 1
    expected = "main.py: error: --path closed: cannot make a run folder there: Read-only file system"
    assert run.errors() == [expected]


@pytest.mark.parametrize(
    ("part", "file"), [("", "command.txt"), ("checkpoints", "checkpoints/last.ckpt")], ids=["run", "checkpoints"]
)
def test_a_resumed_folder_that_cannot_be_written_is_found_before_training(part: str, file: str, tmp_path: Path) -> None:
    finish(WORDS, tmp_path, partial(inject.signal_after_step, 7, 15))
    path = only_run(tmp_path)
    before = (path / "metrics.jsonl").read_bytes()
    with read_only(path / part):
        run = finish(["--resume", str(path)], tmp_path)
    [line] = run.errors()
    assert (run.exit_code(), run.warnings("Resuming")) == (1, 0)
    assert line.endswith(f"{path / file}: Read-only file system")
    assert (path / "metrics.jsonl").read_bytes() == before


@pytest.mark.faults
def test_a_stdout_that_is_full_does_not_end_the_run(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, str(ROOT / "main.py"), *WORDS],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert status(only_run(tmp_path)) == "done"


def test_lines_wait_for_the_disk_and_are_never_torn(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8192) as disk:
        lines = Lines(disk / "lines")
        lines.append("first\n")
        (disk / "filler").write_bytes(b"x" * 4096)
        long = json.dumps("y" * 6000) + "\n"
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                lines.append(long)
            assert (disk / "lines").read_text() == "first\n"
        (disk / "filler").unlink()
        with pytest.raises(OSError, match="No space"):
            lines.append("last\n")  # two long lines are still too many
        assert (disk / "lines").read_text() == "first\n"
