"""Readers of checkpoints, caches and run folders, given any bytes: what was written, or one line, nothing executed."""

from __future__ import annotations

import functools
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules import cache
from engine.run import checkpoint
from engine.run.folder import RunFolder
from tests.faults.test_properties_cli import QUIET
from utils import UserError

STATE = {"method": {"weight": torch.arange(300.0)}, "step": 3, "best": {"epoch": 1, "test": None}}
COUNT = 400


def written(state: dict) -> bytes:
    stream = io.BytesIO()
    torch.save({"version": checkpoint.VERSION, **state}, stream)
    return stream.getvalue()


PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)


def cached() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cache.npy"
        cache.write(path, PIXELS.shape, lambda put: [put(index, PIXELS[index]) for index in range(5)])
        return path.read_bytes()


cached_once = functools.cache(cached)


@st.composite
def damage(draw: st.DrawFn, content: bytes) -> bytes:
    """Bits flipped, an end cut off, a piece repeated, removed or overwritten; or other bytes altogether."""
    kind = draw(st.sampled_from(["flip", "cut", "repeat", "remove", "overwrite", "other"]))
    first = draw(st.integers(0, len(content) - 1))
    last = draw(st.integers(first, min(len(content), first + 200)))
    if kind == "flip":
        changed = bytearray(content)
        for place in draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
            changed[place] ^= 1 << draw(st.integers(0, 7))
        return bytes(changed)
    if kind == "cut":
        return content[:first]
    if kind == "repeat":
        return content[:last] + content[first:]
    if kind == "remove":
        return content[:first] + content[last:]
    if kind == "overwrite":
        return content[:first] + draw(st.binary(max_size=50)) + content[last:]
    return draw(st.binary(max_size=300))


@settings(QUIET, max_examples=COUNT)
@given(content=damage(written(STATE)))
def test_a_damaged_checkpoint_is_what_was_written_or_one_line(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.ckpt"
    path.write_bytes(content)
    try:
        state = checkpoint.load(path)
    except UserError as error:
        message = str(error)
    else:  # the damage was where nothing is stored, as between two members of the archive
        assert torch.equal(state["method"]["weight"], STATE["method"]["weight"])
        assert {name: state[name] for name in ("step", "best")} == {"step": 3, "best": {"epoch": 1, "test": None}}
        return
    assert str(path) in message and "\n" not in message


@settings(QUIET, max_examples=COUNT)
@given(content=damage(cached_once()))
def test_a_damaged_cache_is_what_was_written_or_nothing(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.npy"
    path.write_bytes(content)
    found = cache.load(path, 5)
    assert (found is None) == (content != cached_once())  # every byte counts
    if found is not None:
        assert torch.equal(found[:], torch.from_numpy(PIXELS))


LINES = "".join(
    json.dumps({"kind": kind, "step": step, "train/loss": 0.5}) + "\n"
    for step in range(1, 9)
    for kind in ("step", "epoch")
).encode()


@settings(QUIET, max_examples=COUNT)
@given(content=damage(LINES))
def test_torn_metrics_lose_lines_and_nothing_else(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = RunFolder(tmp_path_factory.getbasetemp())
    (folder.path / "metrics.jsonl").write_bytes(content)
    (folder.path / "summary.json").write_bytes(content)
    assert isinstance(folder.summary(), dict)
    folder.forget_after(4)
    kept = (folder.path / "metrics.jsonl").read_text().splitlines()
    assert all(json.loads(line)["step"] <= 4 for line in kept)
    assert len(folder.epochs()) <= len(kept)


# What a harmful file would call: anything importable, with any arguments.
CALLS = [("os", "mkdir"), ("os", "system"), ("subprocess", "call"), ("builtins", "eval"), ("pathlib", "Path")]


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, module: str, name: str, argument: str) -> None:
        self.function = getattr(__import__(module), name)
        self.argument = argument

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return self.function, (self.argument,)


@pytest.mark.parametrize("where", ["value", "method", "version", "args"])
@pytest.mark.parametrize("call", CALLS, ids=".".join)
def test_a_checkpoint_calls_nothing(call: tuple[str, str], where: str, tmp_path: Path) -> None:
    target = tmp_path / "executed"
    argument = f"__import__('os').mkdir({str(target)!r})" if call[1] == "eval" else str(target)
    argument = f"mkdir {target}" if call[1] == "system" else argument
    torch.save({"version": checkpoint.VERSION, **STATE, where: Call(*call, argument)}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(tmp_path / "x.ckpt")
    assert not target.exists()
