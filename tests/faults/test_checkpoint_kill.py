"""Whatever happens to a process that writes checkpoints, whole files are left, and none is older than it must be."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from engine.run import checkpoint
from tests.faults.process import CONTEXT, SMALL, finish

NUM_FLOATS = 500_000  # 2 MB, so that a kill often meets a write


def state(step: int) -> dict:
    return {"step": step, "method": {"weight": torch.full((NUM_FLOATS,), float(step))}}


def save_for_ever(folder: Path) -> None:
    step = 0
    while True:
        step += 1
        checkpoint.save_last(folder, state(step), best=step % 3 == 0)
        (folder / "saved").write_text(str(step))


def whole(folder: Path, name: str) -> int:
    """The step of a checkpoint, all of whose values must be from that step."""
    content = checkpoint.load(folder / name)
    assert bool((content["method"]["weight"] == content["step"]).all())
    return content["step"]


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_kill_9_at_random_moments_destroys_nothing(tmp_path: Path) -> None:
    random_ = random.Random(0)
    interrupted_writes = 0
    for attempt in range(40):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        process = CONTEXT.Process(target=save_for_ever, args=(folder,))
        process.start()
        while not (folder / "saved").exists() or int((folder / "saved").read_text() or 0) < 3:
            time.sleep(0.001)
        time.sleep(random_.uniform(0, 0.2))
        process.kill()
        process.join()
        interrupted_writes += any(folder.glob(".*.tmp"))
        saved = int((folder / "saved").read_text() or 3)  # 3: killed while it wrote this very file
        last, previous = whole(folder, checkpoint.LAST), whole(folder, checkpoint.PREVIOUS)
        assert last >= saved and previous in (last - 1, last)
        best = whole(folder, checkpoint.BEST)
        assert best % 3 == 0 and last - 3 < best <= last + 1
        assert checkpoint.load_newest(folder, pytest.fail)["step"] == last
        assert not list(folder.glob(".*.tmp"))
    assert interrupted_writes > 10  # else the moments were not where they matter


@pytest.mark.parametrize("tmpdir", ["/nonexistent/folder", "/dev/shm", "/proc"])
def test_an_odd_tmpdir_has_no_part_in_it(tmpdir: str, tmp_path: Path) -> None:
    run = finish([*SMALL, "--dgl", "--wandb", "offline", "--epochs", "1"], tmp_path, env={"TMPDIR": tmpdir})
    assert (run.exit_code(), run.errors(), run.warnings("wandb failed")) == (0, [], 0)


def link_then_die(folder: Path, count: int) -> None:
    """Save twice, and die right after rename number ``count`` of the second save."""
    checkpoint.save_last(folder, state(1), best=True)
    replace, left = os.replace, [count]

    def replace_and_die(*names: object) -> None:
        replace(*names)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace_and_die
    checkpoint.save_last(folder, state(2), best=True)


# The renames of a save: the whole new file, previous, best, last.
@pytest.mark.parametrize(
    ("count", "expected"), [(1, (1, None, 1)), (2, (1, 1, 1)), (3, (1, 1, 2)), (4, (2, 1, 2))], ids=str
)
def test_a_kill_between_two_renames(count: int, expected: tuple, tmp_path: Path) -> None:
    process = CONTEXT.Process(target=link_then_die, args=(tmp_path, count))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    names = (checkpoint.LAST, checkpoint.PREVIOUS, checkpoint.BEST)
    assert tuple(whole(tmp_path, name) if (tmp_path / name).exists() else None for name in names) == expected
