"""The cache of a tree: the same bits, never a stale or a damaged one, and no harm where it cannot be kept."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import cache, folder, load_data
from datamodules.stored import Stored
from schemas import DataArgs
from tests.datamodules.conftest import cache_files, fault, load, pixels, same, write


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_decode", lambda *_: pytest.fail("the images were decoded again"))


def test_the_second_load_decodes_nothing_and_gives_the_same_bits(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load("folder", tree)
    assert len(cache_files()) == 1
    forbid_decoding(monkeypatch)
    assert same(load("folder", tree), first)


def test_decoding_is_said_once(tree: Path) -> None:
    lines: list[str] = []
    args = DataArgs(dataset="folder", data_dir=str(tree))
    for _ in range(2):
        load_data(args, announce=lines.append, progress=False)
    assert lines == [f"Decoding 8 images of {tree}, once: they are kept in {cache_files()[0].parent}"]


def test_nothing_is_written_into_the_tree(tree: Path) -> None:
    before = sorted(tree.rglob("*"))
    load("folder", tree)
    assert sorted(tree.rglob("*")) == before


def test_images_stay_in_the_file_also_when_they_are_divided(tree: Path) -> None:
    splits = load("folder", tree, train_size=3, val_size=2)
    assert splits.val is not None
    for images in (splits.train, splits.val, splits.test):
        assert isinstance(images.images_PHWC, Stored)
        assert images.images_PHWC.path == cache_files()[0]


def test_the_file_is_an_array_that_numpy_reads(tree: Path) -> None:
    splits = load("folder", tree)
    whole = np.load(cache_files()[0], mmap_mode="r")
    expected = torch.cat((splits.train.images_PHWC[:], splits.test.images_PHWC[:]))
    assert torch.equal(torch.from_numpy(np.array(whole)), expected)


def test_a_changed_file_makes_the_cache_stale_and_the_old_one_goes(tree: Path) -> None:
    load("folder", tree)
    old = cache_files()
    write(tree / "train" / "dog" / "1.png", pixels(77))
    os.utime(tree / "train" / "dog" / "1.png", ns=(1, 1))
    assert torch.equal(load("folder", tree).train.images_PHWC[4], torch.from_numpy(pixels(77)))
    assert len(cache_files()) == 1 and cache_files() != old


def test_what_is_open_stays_readable_when_the_cache_goes(tree: Path) -> None:
    splits = load("folder", tree)
    cache_files()[0].unlink()
    assert torch.equal(splits.train.images_PHWC[4], torch.from_numpy(pixels(11)))


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


def test_each_image_size_and_each_tree_keeps_a_cache_of_its_own(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = (None, 4, 8)
    first = [load("folder", tree, image_size=size) for size in sizes]
    (tree / "again").mkdir()
    for split in ("train", "test"):
        (tree / "again" / split).symlink_to(tree / split)
    load("folder", tree / "again")
    assert len(cache_files()) == 4 and len({path.parent for path in cache_files()}) == 4
    forbid_decoding(monkeypatch)
    for size, expected in zip(sizes, first, strict=True):
        assert same(load("folder", tree, image_size=size), expected)


def damage_one_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = content.index(pixels(10).tobytes()) + 5
    content[place] ^= 1
    path.write_bytes(content)


def exchange_two_images(path: Path) -> None:
    """The sum of all bytes stays."""
    content, one, two = path.read_bytes(), pixels(10).tobytes(), pixels(0).tobytes()
    places = content.index(one), content.index(two)
    changed = bytearray(content)
    for place, image in zip(places, (two, one), strict=True):
        changed[place : place + len(image)] = image
    path.write_bytes(changed)


def exchange_height_and_width(path: Path) -> None:
    content = path.read_bytes()
    assert b"6, 5, 3" in content[:128]
    path.write_bytes(content.replace(b"6, 5, 3", b"5, 6, 3", 1))


def of_other_images(path: Path) -> None:
    cache.write(path, (7, 6, 5, 3), lambda put: [put(index, pixels(index)) for index in range(7)])


@pytest.mark.parametrize(
    "damage",
    [
        damage_one_byte,
        exchange_two_images,
        exchange_height_and_width,
        of_other_images,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-30]),
        lambda path: path.write_bytes(path.read_bytes()[:200]),
        lambda path: path.write_bytes(path.read_bytes() + b"0"),
        lambda path: path.write_bytes(b"not an array at all"),
    ],
    ids=["byte", "order", "shape", "count", "empty", "end cut", "start only", "longer", "other"],
)
def test_a_damaged_cache_is_rebuilt_in_silence(tree: Path, damage: object, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load("folder", tree)
    expected = [part[:].clone() for part in (first.train.images_PHWC, first.test.images_PHWC)]
    damage(cache_files()[0])  # type: ignore[operator]
    again = load("folder", tree)
    assert all(
        torch.equal(part[:], pixels) for part, pixels in zip((again.train[0], again.test[0]), expected, strict=True)
    )
    forbid_decoding(monkeypatch)
    assert same(load("folder", tree), again)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_cache_runs_no_code(tree: Path) -> None:
    load("folder", tree)
    stream = io.BytesIO()
    np.save(stream, np.array([Trap(tree / "sprung")] * 8, dtype=object))
    cache_files()[0].write_bytes(stream.getvalue())
    assert load("folder", tree).train.num_images == 6
    assert not (tree / "sprung").exists()


def test_only_our_own_old_files_are_removed(tree: Path) -> None:
    path = cache.cache_path(tree, None, folder.scan(tree).key())
    path.parent.mkdir(parents=True)
    old = [path.with_name("0" * 64 + ".npy"), path.with_name("." + "1" * 64 + ".npy.77.tmp")]
    others = [path.with_name("notes.npy"), path.with_name("x" + old[0].name), path.parent.parent / old[0].name]
    for each in (*old, *others):
        each.write_text("x")
    load("folder", tree)
    assert not any(each.exists() for each in old) and all(each.exists() for each in others)


def full(path: Path, *_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_cache_that_cannot_be_written_costs_one_line(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, lines = load("folder", tree), []
    cache_files()[0].unlink()
    monkeypatch.setattr(cache, "write", full)
    assert same(load("folder", tree, lines), expected)
    assert len(lines) == 1 and "\n" not in lines[0]
    assert str(cache.home()) in lines[0] and "No space left on device" in lines[0] and "XDG_CACHE_HOME" in lines[0]
    assert cache_files() == []


def test_a_disk_without_room_shows_before_the_work(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        cache.write(tree / "x.npy", (8, 6, 5, 3), lambda put: pytest.fail("the work has begun"))
    assert sorted(path.name for path in tree.iterdir()) == ["test", "train"]


def test_a_cache_folder_that_is_a_file_costs_one_line(tree: Path, cache_home: Path) -> None:
    (cache_home / "beyond-backprop").write_text("")
    lines: list[str] = []
    assert torch.equal(load("folder", tree, lines).train.images_PHWC[4], torch.from_numpy(pixels(11)))
    assert len(lines) == 1 and "Not a directory" in lines[0]


def test_a_set_for_which_there_is_room_nowhere_is_one_line(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "write", full)
    monkeypatch.setattr(folder, "free_memory_bytes", lambda: 719)  # 8 images of 6 x 5 x 3 take 720
    message = fault("folder", tree)
    assert message.startswith(f"No image cache in {cache.home()} (No space left on device), and the images take 720 B")
    assert "719 B are free; set XDG_CACHE_HOME" in message


def test_an_image_that_cannot_be_read_leaves_no_file(tree: Path) -> None:
    path = tree / "test" / "dog" / "0.png"
    path.write_bytes(path.read_bytes()[:-40])
    fault("folder", tree)
    assert [each.name for each in cache.home().rglob("*") if each.is_file()] == ["lock"]


def test_a_cache_that_becomes_shorter_is_one_line(tree: Path) -> None:
    images = load("folder", tree).train.images_PHWC
    os.truncate(cache_files()[0], 200)
    with pytest.raises(folder.UserError, match="it has become shorter"):
        images[:]


RACER = """
import sys
from pathlib import Path
from datamodules import cache, load_data
from schemas import DataArgs
root = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(15):
    for path in cache.home().rglob("*.npy"):
        path.unlink(missing_ok=True)
    splits = load_data(DataArgs(dataset="folder", data_dir=str(root)), announce=lambda line: None)
    print(int(splits.train.images_PHWC[:].sum()))
"""


def test_two_processes_that_rebuild_the_cache_do_not_disturb_each_other(tree: Path) -> None:
    expected = load("folder", tree)
    command = [sys.executable, "-c", RACER, str(tree)]
    pipe, lines = subprocess.PIPE, []
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == "ready\n"
        other.stdin.write("go\n")
        other.stdin.flush()
        for _ in range(15):
            for path in cache_files():
                path.unlink(missing_ok=True)
            assert same(load("folder", tree, lines), expected)
        out, err = other.communicate(timeout=60)
    assert out.split() == [str(int(expected.train.images_PHWC[:].sum()))] * 15
    assert err == "" and other.returncode == 0  # no progress bar either, where stderr is no terminal
    assert set(lines) <= {f"Waiting for another process that decodes the images of {tree}"}
    assert not list(cache.home().rglob("*.tmp"))


def test_a_second_process_waits_and_takes_what_the_first_has_decoded(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    path = cache.cache_path(tree, None, folder.scan(tree).key())
    path.parent.mkdir(parents=True)
    program = (
        "import fcntl, sys; s = open(sys.argv[1], 'w'); fcntl.flock(s, fcntl.LOCK_EX); print('held', flush=True); "
        "sys.stdin.readline()"
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", program, str(path.with_name("lock"))]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == "held\n"

        def announce(line: str) -> None:
            lines.append(line)
            cache.write(path, (8, 6, 5, 3), lambda put: [put(index, pixels(index)) for index in range(8)])
            assert other.stdin is not None
            other.stdin.close()

        forbid_decoding(monkeypatch)
        images = folder._images(folder.scan(tree), None, announce, False)
    assert lines == [f"Waiting for another process that decodes the images of {tree}"]
    assert torch.equal(images[7], torch.from_numpy(pixels(7)))
