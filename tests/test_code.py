"""Code of the user's own: it is run because the user named it, and out of a run folder only what was named before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli import code
from consts import digest_name
from sections.files import loaded, sha256
from utils import UsageError, code_file, short_name, with_file

CODE = {"method": "own.py", "model": "own.py:build"}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What was named is remembered for this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def write(path: Path, text: str) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return text.encode()


def run_folder(folder: Path, name: str, text: str) -> dict[str, str]:
    """A run that was trained with such code; what its config.yaml has of it."""
    source = write(folder / "code" / name / "own.py", text)
    return {name: str(folder.parent / CODE[name]), digest_name(name): sha256(source)}


def mark(folder: Path) -> str:
    """Code that leaves a file behind when it runs."""
    return f"open({str(folder / 'ran')!r}, 'w')\n"


@pytest.mark.parametrize(
    ("value", "file", "shown"),
    [
        ("my/rule.py", "my/rule.py", "rule"),
        ("../a b/net.py:build", "../a b/net.py", "net:build"),
        ("dgl", None, "dgl"),
        ("rule.pyc", None, "rule.pyc"),
        (".py:x", None, ".py:x"),
        ("a.py:b:c", None, "a.py:b:c"),
    ],
)
def test_a_value_names_a_file_by_its_ending(value: str, file: str | None, shown: str) -> None:
    assert code_file(value) == (Path(file) if file else None)
    assert short_name(value) == shown
    assert with_file(value, Path("/x/y.py")) == ("/x/y.py" + value.partition(".py")[2] if file else value)


def test_what_is_no_text_names_no_file() -> None:
    assert [code_file(value) for value in (None, 3, ["a.py"], {"a.py": 1})] == [None] * 4


@pytest.mark.parametrize("value", ["own.py", "./own.py:build", "sub/../own.py"])
def test_a_named_file_is_run_and_has_an_absolute_path(value: str, tmp_path: Path) -> None:
    write(tmp_path / "own.py", "x = 5\n")
    assert code.named(value, "--model") == str(tmp_path / "own.py") + value.partition(".py")[2]
    assert loaded(tmp_path / "own.py").x == 5
    assert code.named("dgl", "--method") == "dgl"


@pytest.mark.parametrize("name", CODE)
def test_code_of_a_run_folder_runs_only_if_it_was_named(name: str, tmp_path: Path) -> None:
    text = mark(tmp_path)
    settings = run_folder(tmp_path / "run", name, text)
    copy = tmp_path / "run" / "code" / name / CODE[name]
    with pytest.raises(UsageError) as caught:
        code.of_run(tmp_path / "run", settings, {})
    assert str(caught.value).endswith(f"name it once: evaluate {tmp_path / 'run'} --{name} {copy}")
    assert not (tmp_path / "ran").exists()
    write(tmp_path / "mine.py", text)  # the same code under another name
    code.named("mine.py", "--method")
    (tmp_path / "ran").unlink()
    assert code.of_run(tmp_path / "run", settings, {}) == ({name: str(copy)}, [])
    assert (tmp_path / "ran").exists()


def test_code_named_beside_a_run_is_run_in_its_place_and_remembered(tmp_path: Path) -> None:
    settings = run_folder(tmp_path / "run", "method", "x = 1\n")
    write(tmp_path / "other.py", "x = 1\n")
    assert code.of_run(Path("run"), settings, {"method": "other.py"}) == ({"method": str(tmp_path / "other.py")}, [])
    assert code.of_run(Path("run"), settings, {})[0] == {"method": str(tmp_path / "run/code/method/own.py")}


def test_other_code_beside_a_run_is_refused_and_not_run(tmp_path: Path) -> None:
    settings = run_folder(tmp_path / "run", "method", "x = 1\n")
    write(tmp_path / "other.py", mark(tmp_path))
    with pytest.raises(UsageError, match=r"--method other.py: not the code that the run was trained with, of which "):
        code.of_run(Path("run"), settings, {"method": "other.py"})
    with pytest.raises(UsageError, match=r"--method none.py: cannot read .*none.py: No such file"):
        code.of_run(Path("run"), settings, {"method": "none.py"})
    with pytest.raises(UsageError, match=r"--method other.py: run was trained with dgl; leave it out"):
        code.of_run(Path("run"), {"method": "dgl", "model": "VGGs"}, {"method": "other.py"})
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("digest", ["as it was", "of the changed one", None])
def test_a_changed_or_lost_copy_is_not_run(digest: str | None, tmp_path: Path) -> None:
    settings: dict[str, object] = dict(run_folder(tmp_path / "run", "method", "x = 1\n"))
    write(tmp_path / "own.py", "x = 1\n")
    code.named("own.py", "--method")
    changed = write(tmp_path / "run/code/method/own.py", mark(tmp_path))
    if digest != "as it was":
        settings["method_sha256"] = sha256(changed) if digest else None
    with pytest.raises(UsageError, match="nobody has named" if digest == "of the changed one" else "is not the code"):
        code.of_run(Path("run"), settings, {})
    (tmp_path / "run/code/method/own.py").unlink()
    with pytest.raises(UsageError, match="run has lost its code; give --method with the file that it was trained with"):
        code.of_run(Path("run"), settings, {})
    assert not (tmp_path / "ran").exists()


def test_a_path_in_a_run_is_never_followed(tmp_path: Path) -> None:
    """Neither is a file run for its path, nor can the path lead out of the folder of copies."""
    source = write(tmp_path / "evil.py", mark(tmp_path))
    (tmp_path / "run").mkdir()
    for value in ("evil.py", str(tmp_path / "evil.py"), "../../../evil.py"):
        with pytest.raises(UsageError, match="run has lost its code"):
            code.of_run(Path("run"), {"method": value, "method_sha256": sha256(source)}, {})
    assert not (tmp_path / "ran").exists()


def test_a_file_that_has_changed_since_is_said_and_the_copy_is_run(tmp_path: Path) -> None:
    write(tmp_path / "own.py", "x = 1\n")
    code.named("own.py", "--method")
    settings = run_folder(tmp_path / "run", "method", "x = 1\n")
    write(tmp_path / "own.py", "x = 2\n")
    copy = tmp_path / "run/code/method/own.py"
    [warning] = code.of_run(Path("run"), settings, {})[1]
    assert (
        warning == f"{tmp_path / 'own.py'} has changed since run was started, which goes on with its own code: {copy}"
    )
    assert loaded(copy).x == 1
    [warning] = code.changed(settings, "c.yaml")
    assert warning.startswith(f"c.yaml: method: {tmp_path / 'own.py'} has changed since these settings were written")
    (tmp_path / "own.py").unlink()
    assert code.of_run(Path("run"), settings, {})[1] == code.changed(settings, "c.yaml") == []


def test_without_a_place_to_remember_code_is_named_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "file", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    settings = run_folder(tmp_path / "run", "method", "x = 1\n")
    typed = {"method": "run/code/method/own.py"}
    assert code.of_run(Path("run"), settings, typed)[0]
    with pytest.raises(UsageError, match="nobody has named"):
        code.of_run(Path("run"), settings, {})


def test_digests_are_remembered_once(cache: Path, tmp_path: Path) -> None:
    for name, text in (("a.py", "x = 1\n"), ("b.py", "x = 1\n"), ("c.py", "x = 2\n")):
        write(tmp_path / name, text)
        code.named(name, "--method")
    lines = (cache / "beyond-backprop" / os.listdir(cache / "beyond-backprop")[0]).read_text().splitlines()
    assert lines == [sha256(b"x = 1\n"), sha256(b"x = 2\n")]
