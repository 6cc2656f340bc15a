"""A file of the user's own: run once, alone, without a trace; whatever is wrong with it is one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sections.files import load_file, loaded, source_of
from utils import UsageError


def write(folder: Path, text: str, name: str = "own.py") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_a_file_is_run_once_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = write(tmp_path, "from __future__ import annotations\nmarks = []\nname = __name__\n")
    first = load_file(path, "--model x")
    first.marks.append(1)
    assert load_file(path, "--model x") is first and first.name.rpartition(".")[2] == "own"
    assert loaded(path) is first and source_of(path) == path.read_bytes()
    write(tmp_path, "marks = [2]\n")  # what it becomes meanwhile is for the next process
    assert load_file(path, "--model x") is first and b"__name__" in source_of(path)
    with pytest.raises(UsageError, match=r"--model x: .*own.py has changed since this process has run it"):
        load_file(path, "--model x", path.read_bytes())
    assert [each.name for each in tmp_path.iterdir()] == ["own.py"]


def test_annotations_of_pydantic_find_the_names_of_the_file(tmp_path: Path) -> None:
    text = (
        "from __future__ import annotations\nfrom pydantic import BaseModel\nclass Inner(BaseModel):\n    x: int\n"
        "class Outer(BaseModel):\n    inner: Inner\n"
    )
    assert load_file(write(tmp_path, text), "--method x").Outer(inner={"x": 3}).inner.x == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\nx = = 2\n", "--model y: line 2 of own.py: SyntaxError: invalid syntax"),
        ("x = 1\n\nx = undefined\n", "--model y: line 3 of own.py: NameError: name 'undefined' is not defined"),
        ("import json\njson.loads('[')\n", "--model y: line 2 of own.py: JSONDecodeError: Expecting value"),
        ("import sys\nsys.exit(3)\n", "--model y: line 2 of own.py: SystemExit: 3"),
        ("raise ValueError('a\\nb')\n", "--model y: line 1 of own.py: ValueError: a b"),
        ("import beside\n", "--model y: line 1 of own.py: ModuleNotFoundError: No module named 'beside'"),
        ("x = '\0'\n", "--model y: "),
        ("# -*- coding: nothing -*-\n", "--model y: "),
    ],
)
def test_an_error_is_one_line_with_its_place_and_can_be_mended(text: str, expected: str, tmp_path: Path) -> None:
    write(tmp_path, "x = 1\n", "beside.py")
    path, before = write(tmp_path, text), set(sys.modules)
    with pytest.raises(UsageError) as caught:
        load_file(path, "--model y")
    assert str(caught.value).startswith(expected) and "\n" not in str(caught.value)
    assert not [name for name in set(sys.modules) - before if name.startswith("own_")]
    assert load_file(write(tmp_path, "x = 5\n"), "--model y").x == 5


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path / "none.py", "No such file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "a\0b.py", "embedded null byte"),
    ):
        with pytest.raises(UsageError, match=f"--model z: cannot read .*: {reason}"):
            load_file(path, "--model z")


def test_an_interrupt_is_not_taken_for_an_error_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        load_file(write(tmp_path, "raise KeyboardInterrupt\n"), "--model z")
