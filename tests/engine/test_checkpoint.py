"""Checkpoints survive, or say what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.run import checkpoint
from utils import UserError

STATE = {"method": {"weight": torch.arange(100_000.0)}, "step": 3}


def test_round_trip_and_the_one_before(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.save_last(tmp_path, {**STATE, "step": step})
    assert checkpoint.load(tmp_path / checkpoint.LAST)["step"] == 3
    assert checkpoint.load(tmp_path / checkpoint.PREVIOUS)["step"] == 2
    assert torch.equal(checkpoint.load(tmp_path / checkpoint.LAST)["method"]["weight"], STATE["method"]["weight"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [checkpoint.LAST, checkpoint.PREVIOUS]


def test_a_kept_checkpoint_stays_when_last_moves_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for linked in (True, False):
        if not linked:
            monkeypatch.setattr("os.link", lambda *names: (_ for _ in ()).throw(OSError(1, "no links here")))
        checkpoint.save_last(tmp_path, {**STATE, "step": 1}, best=True)
        checkpoint.save_last(tmp_path, {**STATE, "step": 2})
        assert checkpoint.load(tmp_path / checkpoint.BEST)["step"] == 1
        assert checkpoint.load(tmp_path / checkpoint.LAST)["step"] == 2


@pytest.mark.parametrize("keep", [0, 100, 5000, -1])
def test_a_cut_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / checkpoint.LAST
    checkpoint.save(path, STATE)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(path)


def test_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / checkpoint.LAST
    checkpoint.save(path, STATE)
    content = bytearray(path.read_bytes())
    content[200_000] ^= 4
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / checkpoint.LAST
    checkpoint.save(path, STATE)

    def full(state: object, stream) -> None:
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="No space left"):
        checkpoint.save(path, {"step": 4})
    monkeypatch.undo()
    assert checkpoint.load(path)["step"] == 3
    assert [item.name for item in tmp_path.iterdir()] == [checkpoint.LAST]


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path(tmp_path / "executed").touch, ())

    torch.save({"version": checkpoint.VERSION, "x": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(tmp_path / "evil.ckpt")
    assert not (tmp_path / "executed").exists()


def test_another_version_is_refused(tmp_path: Path) -> None:
    torch.save({"version": -1}, tmp_path / "old.ckpt")
    with pytest.raises(UserError, match="not a checkpoint of this version"):
        checkpoint.load(tmp_path / "old.ckpt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint .*none\.ckpt"):
        checkpoint.load(tmp_path / "none.ckpt")


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_one_before_takes_the_place_of_a_damaged_last(tmp_path: Path) -> None:
    lines: list[str] = []
    for step in (1, 2):
        checkpoint.save_last(tmp_path, {**STATE, "step": step})
    (tmp_path / ".last.ckpt.77.tmp").write_bytes(b"what a killed save left")
    damage(tmp_path / checkpoint.LAST)
    assert checkpoint.load_newest(tmp_path, lines.append)["step"] == 1
    [line] = lines
    assert "last.ckpt is damaged" in line and "going on from previous.ckpt, which is from step 1" in line
    assert checkpoint.load(tmp_path / checkpoint.LAST)["step"] == 1  # else the next save would keep the damaged one
    assert sorted(path.name for path in tmp_path.iterdir()) == [checkpoint.LAST, checkpoint.PREVIOUS]


def test_where_both_are_damaged_the_newest_is_named(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save_last(tmp_path, {**STATE, "step": step})
    damage(tmp_path / checkpoint.PREVIOUS)
    assert checkpoint.load_newest(tmp_path, pytest.fail)["step"] == 2
    damage(tmp_path / checkpoint.LAST)
    with pytest.raises(UserError, match=r"last\.ckpt is damaged"):
        checkpoint.load_newest(tmp_path, pytest.fail)
