"""A torch that is missing or too old is refused in one line, before it is imported."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import main
from engine.run import requirements

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):
    """Let ``version`` of torch be the one that is installed; None: there is none."""

    def installed(version: str | None) -> None:
        def answer(package: str) -> str:
            if version is None:
                raise metadata.PackageNotFoundError(package)
            return version

        monkeypatch.setattr(requirements.metadata, "version", answer)

    return installed


@pytest.mark.parametrize(
    ("version", "found"),
    [("2.9.1+cu128", "torch 2.9.1+cu128 is too old"), ("1.13.1", "torch 1.13.1 is too old"), (None, "not installed")],
)
@pytest.mark.parametrize("command", [["--dgl", "--dataset", "digits"], ["evaluate", "."]])
def test_another_torch_is_refused_in_one_line_and_nothing_is_written(
    install,
    command,
    version,
    found,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install(version)
    monkeypatch.chdir(tmp_path)
    assert main.main(command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("main.py: error: torch ")
    assert found in line
    assert "2.11 or newer is needed" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("version", ["2.11.0", "2.11.0a0+1a2b3c.nv26.02", "2.14.1+cpu", "3.0.0"])
def test_torch_of_the_range_and_newer_ones_are_accepted(install, version: str) -> None:
    install(version)
    requirements.check_torch()


def test_the_oldest_is_that_of_pyproject() -> None:
    (torch,) = [one for one in map(Requirement, PROJECT["dependencies"]) if one.name == "torch"]
    lowest = [bound.version for bound in torch.specifier if bound.operator == ">="]
    assert lowest == [".".join(map(str, requirements.OLDEST_TORCH))]
