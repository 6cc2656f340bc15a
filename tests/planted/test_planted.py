"""The lists of faults fit the code as it is now, and the runner tells a fault that is noticed from one that is not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.planted.__main__ import ROOT, main, problem, read

LISTS = sorted((ROOT / "tests" / "planted").glob("*.yaml"))


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_every_fault_of_a_list_can_be_planted(path: Path) -> None:
    faults = read(path)
    assert faults
    assert [text for fault in faults if (text := problem(fault, ROOT))] == []
    assert all(fault.new != fault.old and fault.why for fault in faults)


def project(folder: Path, *faults: dict[str, str]) -> Path:
    """A project with one function, one test of it, and a list of faults."""
    (folder / "half.py").write_text("def half(x):\n    return x / 2\n")
    (folder / "test_half.py").write_text("from half import half\n\n\ndef test():\n    assert half(4) == 2\n")
    entries = [{"file": "half.py", "tests": "test_half.py", "why": "because"} | fault for fault in faults]
    (folder / "half.yaml").write_text(yaml.safe_dump(entries))
    subprocess.run(["git", "init", "-q", folder], check=True)
    return folder


NOTICED, MISSED, BROKEN = ({"old": "x / 2", "new": new} for new in ("x / 4", "x - 2", "x / /"))


def test_a_fault_is_killed_survives_or_breaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = project(tmp_path, NOTICED, MISSED, BROKEN, NOTICED)
    before = (folder / "half.py").read_text()
    assert main([], folder, folder) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["killed", "survived", "broken", "killed", "2"]
    assert lines[-1] == "2 of 4 killed"
    assert (folder / "half.py").read_text() == before


def test_all_killed_is_success(tmp_path: Path) -> None:
    assert main(["half"], project(tmp_path, NOTICED), tmp_path) == 0


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"old": "x / 3", "new": ""}, "half: half.py has 0 times: x / 3"),
        ({"old": "half", "new": "", "file": "test_half.py"}, "half: test_half.py has 3 times: half"),
        (NOTICED | {"file": "none.py"}, "half: none.py is no file"),
        (NOTICED | {"tests": "none.py::test"}, "half: no such tests: none.py::test"),
        (NOTICED | {"tests": "test_half.py -k none"}, "these tests fail without a fault: test_half.py -k none"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(
    fault: dict[str, str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([], project(tmp_path, fault), tmp_path) == 2
    assert capsys.readouterr().err.splitlines()[-1].strip() == message


def test_a_rule_without_a_list_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["none"], tmp_path, tmp_path) == 2
    assert capsys.readouterr().err == "no list for none\n"
