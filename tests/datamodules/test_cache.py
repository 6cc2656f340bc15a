"""The cache of a tree: the same bits, never a stale or a damaged one, and no harm where it cannot be kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import cache, folder
from tests.datamodules.conftest import cache_files, load, pixels, same, write


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "decode", lambda *_: pytest.fail("the images were decoded again"))


def test_the_second_load_decodes_nothing_and_gives_the_same_bits(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load("folder", tree)
    assert len(cache_files(tree)) == 1
    forbid_decoding(monkeypatch)
    assert same(load("folder", tree), first)


def test_a_changed_file_makes_the_cache_stale_and_the_old_one_goes(tree: Path) -> None:
    load("folder", tree)
    old = cache_files(tree)
    write(tree / "train" / "dog" / "1.png", pixels(77))
    os.utime(tree / "train" / "dog" / "1.png", ns=(1, 1))
    assert torch.equal(load("folder", tree).train.images_PHWC[4], torch.from_numpy(pixels(77)))
    assert len(cache_files(tree)) == 1 and cache_files(tree) != old


@pytest.mark.parametrize("change", ["size", "time", "name", "added", "removed"])
def test_every_change_of_the_tree_changes_the_key(tree: Path, change: str) -> None:
    before, path = folder.scan(tree).key(), tree / "test" / "cat" / "0.png"
    write(path.with_name("1.png"), pixels(1))
    with_two = folder.scan(tree).key()
    assert with_two != before
    if change == "size":
        state = path.stat()
        path.write_bytes(path.read_bytes() + b"0")
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    elif change == "time":
        os.utime(path, ns=(1, 1))
    elif change == "name":
        path.rename(path.with_name("2.png"))
    elif change == "added":
        write(path.with_name("2.png"), pixels(1))
    else:
        path.with_name("1.png").unlink()
    assert folder.scan(tree).key() != with_two


def damage_one_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = content.index(pixels(10).tobytes()) + 5
    content[place] ^= 1
    path.write_bytes(content)


def wrong_count(path: Path) -> None:
    cache.save(path, np.zeros((5, 6, 5, 3), np.uint8), np.zeros((2, 6, 5, 3), np.uint8), pytest.fail)


@pytest.mark.parametrize(
    "damage",
    [
        damage_one_byte,
        wrong_count,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-30]),
        lambda path: path.write_bytes(path.read_bytes()[:200]),
        lambda path: path.write_bytes(b"not an archive at all"),
    ],
    ids=["byte", "count", "empty", "end cut", "start only", "other"],
)
def test_a_damaged_cache_is_rebuilt_in_silence(tree: Path, damage: object, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load("folder", tree)
    damage(cache_files(tree)[0])  # type: ignore[operator]
    assert same(load("folder", tree), first)
    forbid_decoding(monkeypatch)
    assert same(load("folder", tree), first)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_cache_runs_no_code(tree: Path) -> None:
    first = load("folder", tree)
    with cache_files(tree)[0].open("wb") as stream:
        np.savez(stream, train=np.array([Trap(tree / "sprung")], dtype=object), test=np.zeros(2))
    assert same(load("folder", tree), first)
    assert not (tree / "sprung").exists()


def test_only_our_own_old_caches_are_removed(tree: Path) -> None:
    old = cache.cache_path(tree, "0" * 64)
    others = [tree / "beyond-backprop-cache-notes.npz", tree / "data.npz", tree / f"x{old.name}"]
    for path in (old, *others):
        path.write_text("x")
    load("folder", tree)
    assert not old.exists() and all(path.exists() for path in others)


def test_a_folder_that_cannot_be_written_costs_one_line(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, lines = load("folder", tree), []
    cache_files(tree)[0].unlink()

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(cache, "atomic_write", refuse)
    assert same(load("folder", tree, lines), expected)
    assert len(lines) == 1 and "\n" not in lines[0]
    assert str(tree) in lines[0] and "Permission denied" in lines[0]
    assert cache_files(tree) == []


RACER = """
import sys
from pathlib import Path
from datamodules import load_data
from schemas import DataArgs
root = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(15):
    for path in root.glob("*.npz"):
        path.unlink(missing_ok=True)
    splits = load_data(DataArgs(dataset="folder", data_dir=str(root)))
    print(int(splits.train.images_PHWC.sum()))
"""


def test_two_processes_that_rebuild_the_cache_do_not_disturb_each_other(tree: Path) -> None:
    expected = load("folder", tree)
    command = [sys.executable, "-c", RACER, str(tree)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == "ready\n"
        other.stdin.write("go\n")
        other.stdin.flush()
        for _ in range(15):
            for path in tree.glob("*.npz"):
                path.unlink(missing_ok=True)
            assert same(load("folder", tree), expected)
        out, err = other.communicate(timeout=60)
    assert out.split() == [str(int(expected.train.images_PHWC.sum()))] * 15
    assert err == "" and other.returncode == 0  # no progress bar either, where stderr is no terminal
    assert not [name for name in os.listdir(tree) if name.endswith(".tmp")]
